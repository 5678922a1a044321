package process

import (
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
)

func TestPIDNamespace(t *testing.T) {
	for name, c := range map[string]struct {
		link, status string
		want         uint32
		err          error
	}{
		"the host's":                          {"pid:[4026531836]", "NSpid:\t29647\n", 0, nil},
		"one of its own":                      {"pid:[4026532178]", "Tgid:\t12\nNSpid:\t12\n", 4026532178, nil},
		"one of its own, the host's /proc":    {"pid:[4026532178]", "NSpid:\t29647\t12\n", 0, ErrForeignProc},
		"one of its own, a container's /proc": {"pid:[4026532178]", "Tgid:\t29\nNSpid:\t29\t14\t12\n", 0, ErrForeignProc},
		"another one's /proc":                 {"pid:[4026532178]", "", 0, fs.ErrNotExist},
		"a kernel without pid namespaces":     {"", "Tgid:\t12\n", 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			files := fstest.MapFS{}
			if c.status != "" {
				files["proc/self/status"] = &fstest.MapFile{Data: []byte(c.status)}
			}
			if c.link != "" {
				files["proc/self/ns/pid"] = &fstest.MapFile{Data: []byte(c.link), Mode: fs.ModeSymlink}
			}
			if got, err := PIDNamespace(files); got != c.want || !errors.Is(err, c.err) {
				t.Errorf("%d, %v; want %d, %v", got, err, c.want, c.err)
			}
		})
	}
	files := fstest.MapFS{
		"proc/self/status": &fstest.MapFile{},
		"proc/self/ns/pid": &fstest.MapFile{Data: []byte("pid:[x]"), Mode: fs.ModeSymlink},
	}
	if _, err := PIDNamespace(files); err == nil {
		t.Error("a link without a number was taken")
	}
}
