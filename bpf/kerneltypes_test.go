package bpf

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// typesInFile copies the running kernel's types to a file.
func typesInFile(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, raw)
}

func writeFile(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "types")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadKernelTypes(t *testing.T) {
	raw := typesInFile(t)
	image := filepath.Join(t.TempDir(), "vmlinux")
	if out, err := exec.Command("objcopy", "--add-section", ".BTF="+raw, "/proc/self/exe", image).CombinedOutput(); err != nil {
		t.Fatalf("objcopy: %v\n%s", err, out)
	}
	for _, path := range []string{raw, image} {
		types, err := ReadKernelTypes(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, without := range append(fallbackSets(), nil) {
			if !slices.Contains(without, MemcgAccounting) {
				load(t, Options{KernelBTF: types, TargetsMayCome: true, Without: without})
			}
		}
	}
}

// Types that the programs cannot be fitted by are refused, with the reason, before anything is read by them.
func TestReadKernelTypesRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		path string
		want error
	}{
		"no file":              {filepath.Join(t.TempDir(), "none"), fs.ErrNotExist},
		"text":                 {writeFile(t, []byte("not BTF")), ErrNoTypes},
		"empty":                {writeFile(t, nil), ErrNoTypes},
		"ELF without BTF":      {"/proc/self/exe", ErrNoTypes},
		"of no kernel":         {writeFile(t, marshal(t, &btf.Int{Name: "int", Size: 4})), ErrWrongBTF},
		"of our own object":    {"cpu_x86_bpfel.o", ErrWrongBTF}, // has a task_struct, with the few fields of kernel.bpf.h
		"pid elsewhere":        {writeFile(t, shifted(t, "pid", 8)), ErrWrongBTF},
		"cgroups elsewhere":    {writeFile(t, shifted(t, "cgroups", -8)), ErrWrongBTF},
		"no thread pid":        {writeFile(t, shifted(t, "thread_pid", 0)), ErrWrongBTF},
		"thread pid elsewhere": {writeFile(t, shifted(t, "thread_pid", 8)), ErrWrongBTF},
		"no group leader":      {writeFile(t, shifted(t, "group_leader", 0)), ErrWrongBTF},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadKernelTypes(c.path)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// shifted is the running kernel's BTF with a member of task_struct at another place; by 0 bytes, without it.
func shifted(t *testing.T, member string, bytes int) []byte {
	t.Helper()
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var found *btf.Struct
	if err := kernel.TypeByName("task_struct", &found); err != nil {
		t.Fatal(err)
	}
	task := btf.Copy(found).(*btf.Struct)
	i := slices.IndexFunc(task.Members, func(m btf.Member) bool { return m.Name == member })
	if i < 0 {
		t.Fatalf("task_struct has no member %s", member)
	}
	if bytes == 0 {
		task.Members = slices.Delete(task.Members, i, i+1)
	} else {
		task.Members[i].Offset += btf.Bits(8 * bytes)
	}
	return marshal(t, task)
}

func marshal(t *testing.T, types ...btf.Type) []byte {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
