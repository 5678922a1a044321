package pprof

import (
	"fmt"
	"io"

	pb "github.com/google/pprof/profile"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// baseLabel marks samples that are subtracted, as `go tool pprof -diff_base` does: it then gives percentages of their
// sum, and not of the sum of all differences.
const baseLabel = "pprof::base"

// WriteDiff writes what a profile has more than another one, gzipped, as `go tool pprof -diff_base before after` makes it up: the samples of
// both, those before negative and marked. Scale is what the numbers before are multiplied by, and then rounded, to be comparable.
func WriteDiff(w io.Writer, before, after *profile.Profile, scale float64) error {
	base := Convert(before)
	base.Scale(-scale)
	base.SetLabel(baseLabel, []string{"true"})
	merged, err := pb.Merge([]*pb.Profile{base, Convert(after)})
	if err == nil {
		err = merged.Write(w)
	}
	if err != nil {
		return fmt.Errorf("write pprof profile of differences: %w", err)
	}
	return nil
}
