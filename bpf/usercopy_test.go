package bpf

import (
	"bytes"
	"compress/gzip"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestUsercopyLockup(t *testing.T) {
	const (
		on  = "# Linux\nCONFIG_HAVE_HARDENED_USERCOPY_ALLOCATOR=y\nCONFIG_HARDENED_USERCOPY=y\n"
		off = "CONFIG_HAVE_HARDENED_USERCOPY_ALLOCATOR=y\n# CONFIG_HARDENED_USERCOPY is not set\n"
		// as on the machines of these distributions
		debian = "Linux version 6.1.0-9-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) " +
			"#1 SMP PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)\n"
	)
	fixed := strings.Replace(debian, "Debian 6.1.27-1 (2023-05-08)", "Debian 6.1.140-1 (2025-05-22)", 1)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  Answer
		why   string // in the explanation
	}{
		{"before", map[string]string{"osrelease": "5.18.19", "config": on}, No, "5.18.19"},
		{"first", map[string]string{"osrelease": "5.19.0", "config": on}, Yes, "5.19.0"},
		{"6.0", map[string]string{"osrelease": "6.0.19", "config": on}, Yes, "6.0.19"},
		{"6.1 without the fix", map[string]string{"osrelease": "6.1.35", "config": on}, Yes, "6.1.35"},
		{"6.1 with the fix", map[string]string{"osrelease": "6.1.36", "config": on}, No, "6.1.36"},
		{"6.2", map[string]string{"osrelease": "6.2.16", "config": on}, Yes, "6.2.16"},
		{"6.3 without the fix", map[string]string{"osrelease": "6.3.9-arch1-1", "config": on}, Yes, "6.3.9"},
		{"6.3 with the fix", map[string]string{"osrelease": "6.3.10-arch1-1", "config": on}, No, "6.3.10"},
		{"after", map[string]string{"osrelease": "6.4.0", "config": on}, No, "6.4.0"},
		{"a candidate", map[string]string{"osrelease": "6.3-rc7", "config": on}, Yes, "6.3.0"},
		{"major", map[string]string{"osrelease": "7.3.1", "config": on}, No, "7.3.1"},
		{"Debian without the fix", map[string]string{"osrelease": "6.1.0-9-amd64", "version": debian, "config": on}, Yes, "6.1.27"},
		{"Debian with the fix", map[string]string{"osrelease": "6.1.0-37-amd64", "version": fixed, "config": on}, No, "6.1.140"},
		{"Ubuntu", map[string]string{"osrelease": "6.2.0-39-generic", "signature": "Ubuntu 6.2.0-39.40~22.04.1-generic 6.2.16\n", "config": on}, Yes, "6.2.16"},
		{"not built in", map[string]string{"osrelease": "6.1.35", "config": off}, No, "CONFIG_HARDENED_USERCOPY is not set"},
		{"packed", map[string]string{"osrelease": "6.1.35", "config.gz": packed(t, on)}, Yes, "6.1.35"},
		{"packed, not built in", map[string]string{"osrelease": "6.1.35", "config.gz": packed(t, off)}, No, "not set"},
		{"packed badly", map[string]string{"osrelease": "6.1.35", "config.gz": on}, Inconclusive, "config.gz"},
		{"no configuration", map[string]string{"osrelease": "6.1.35"}, Inconclusive, "config-6.1.35"},
		{"switched off", map[string]string{"osrelease": "6.1.35", "config": on, "cmdline": "quiet hardened_usercopy=off"}, No, "hardened_usercopy=off"},
		{"switched off, no configuration", map[string]string{"osrelease": "6.1.35", "cmdline": "hardened_usercopy=0 quiet"}, No, "hardened_usercopy=0"},
		{"switched off and on", map[string]string{"osrelease": "6.1.35", "config": on, "cmdline": "hardened_usercopy=off hardened_usercopy=on"}, Yes, "6.1.35"},
		{"a strange release", map[string]string{"osrelease": "custom", "config": on}, Inconclusive, "version"},
		{"nothing", nil, Inconclusive, "version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := fstest.MapFS{"proc/cmdline": {Data: []byte("BOOT_IMAGE=/vmlinuz quiet\n")}}
			for name, text := range c.files {
				path := map[string]string{
					"osrelease": "proc/sys/kernel/osrelease", "version": "proc/version", "signature": "proc/version_signature", "cmdline": "proc/cmdline",
					"config": "boot/config-" + strings.TrimSpace(c.files["osrelease"]), "config.gz": "proc/config.gz",
				}[name]
				if name != "config.gz" {
					text += "\n"
				}
				files[path] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := UsercopyLockup(files); got.Answer != c.want || !strings.Contains(got.Why, c.why) {
				t.Errorf("%s: %s; want %s, %q", got.Answer, got.Why, c.want, c.why)
			}
		})
	}
	t.Logf("here: %+v", UsercopyLockup(os.DirFS("/")))
}
