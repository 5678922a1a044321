package bpf

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// ErrNoBTF says that the running kernel's type information cannot be had, by
// which the programs find the fields of its structures.
var ErrNoBTF = errors.New("the kernel's type information (BTF, /sys/kernel/btf/vmlinux) cannot be read")

// ErrNoTypes says that a file holds no type information.
var ErrNoTypes = errors.New("neither BTF nor an ELF file with a section .BTF")

// ErrWrongBTF says that type information from a file is not that of the running kernel.
var ErrWrongBTF = errors.New("it does not describe the running kernel; give the types of its own build")

// ReadKernelTypes reads the kernel's type information from a file: raw BTF, as in /sys/kernel/btf/vmlinux,
// or an ELF file with a section .BTF, such as vmlinux. What it says is tried on the running kernel.
func ReadKernelTypes(path string) (*btf.Spec, error) {
	types, err := readTypes(path)
	if errors.As(err, new(*fs.PathError)) {
		return nil, fmt.Errorf("kernel types: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("kernel types in %s: %w: %w", path, ErrNoTypes, err)
	}
	if err := checkKernelTypes(types); err != nil {
		return nil, fmt.Errorf("kernel types in %s: %w", path, err)
	}
	return types, nil
}

// readTypes looks into ELF files itself: btf.LoadSpec demands a symbol table, which a stripped vmlinux lacks.
func readTypes(path string) (*btf.Spec, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	image, err := elf.NewFile(f)
	if err != nil {
		return btf.LoadSpecFromReader(f)
	}
	section := image.Section(".BTF")
	if section == nil {
		return nil, errors.New("there is no such section")
	}
	raw, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("section .BTF: %w", err)
	}
	return btf.LoadSpecFromReader(bytes.NewReader(raw))
}

// checkKernelTypes has a program read the running task by these types.
func checkKernelTypes(types *btf.Spec) error {
	var programs KernelTypesPrograms
	err := LoadKernelTypesObjects(&programs, &ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: types}})
	var rejected *ebpf.VerifierError
	if errors.Is(err, btf.ErrNotFound) || errors.As(err, &rejected) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: %w", ErrWrongBTF, err) // a type or a field is missing
	}
	if err != nil {
		return fmt.Errorf("try it on the running kernel: %w", err)
	}
	defer programs.Close()
	agree, err := programs.CheckTypes.Run(&ebpf.RunOptions{})
	if err != nil {
		return fmt.Errorf("try it on the running kernel: %w", err)
	}
	if agree == 0 {
		return ErrWrongBTF
	}
	return nil
}
