package main

import "github.com/spf13/pflag"

// kernelFlags say what of the kernel is used; record, agent and doctor have them.
type kernelFlags struct {
	without []string
	btf     string
}

func (f *kernelFlags) add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.without, "without", nil, "leave these kernel `FEATURE`s alone even where they are there, and take the fallback; doctor lists them")
	flags.StringVar(&f.btf, "btf", "", "read the kernel's type information from this `FILE`: BTF, or a vmlinux that holds it")
}
