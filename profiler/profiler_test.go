package profiler

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
)

// A refusal is told by its remedy (these tests hold all capabilities): the kernel has one word for lacking rights and for a memlock limit that is too low.
func TestExplain(t *testing.T) {
	refused := fmt.Errorf("map samples: %w", unix.EPERM)
	for _, c := range []struct {
		err  error
		want error
		says string
	}{
		{refused, ErrNotPermitted, "not permitted to sample: "},
		{fmt.Errorf("%w: %w", bpf.ErrMemlock, refused), ErrNotPermitted, "CAP_SYS_RESOURCE"},
		{fmt.Errorf("%w: %w", bpf.ErrLockdown, unix.EINVAL), bpf.ErrLockdown, "lockdown=integrity"},
		{fmt.Errorf("%w: %w", bpf.ErrNoBTF, unix.ENOENT), bpf.ErrNoBTF, "--btf"},
		{unix.ENODEV, unix.ENODEV, ""},
	} {
		p := Profiler{config: Config{Log: slog.New(slog.DiscardHandler)}}
		if got := p.explain(c.err); !errors.Is(got, c.want) || !strings.Contains(got.Error(), c.says) {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
