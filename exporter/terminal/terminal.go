// Package terminal shows profiles on a terminal: tables of text, and a live view of what runs and what is hot.
//
// Names come from the profiled programs, and none of them reaches the terminal as it is: whatever a terminal might take for
// something else than a character to show becomes a question mark, and what does not fit is cut.
package terminal

import (
	"fmt"
	"strings"

	"github.com/clipperhouse/displaywidth"

	"github.com/pilotlight/pilotlight/profiler/doctor"
)

// ellipsis stands where a name was cut.
const ellipsis = "…"

// fit makes text printable and at most width columns wide.
func fit(text string, width int) string {
	if width <= 0 {
		return ""
	}
	// A name may have a megabyte. A character takes four bytes at most, and some take no column.
	if most := 16 * width; len(text) > most {
		text = text[:most]
	}
	return displaywidth.TruncateString(doctor.Printable(text), width, ellipsis)
}

// pad is fit, and exactly width columns wide.
func pad(text string, width int) string {
	text = fit(text, width)
	return text + strings.Repeat(" ", max(0, width-displaywidth.String(text)))
}

// percentage is a share from 0 to 1 in seven columns.
func percentage(share float64) string { return fmt.Sprintf("%5.1f %%", 100*share) }

// number is n with a comma between thousands.
func number[N int64 | uint64](n N) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
