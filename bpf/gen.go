package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu -ffile-prefix-map=$PWD=." -target amd64,arm64 -go-package bpf -type sample -type stack_chunk -type target -type cpu_counters -type stack_counters -type limit -type frame_kind -type reason -type sample_flag Cpu cpu.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu -ffile-prefix-map=$PWD=." -target amd64,arm64 -go-package bpf -no-global-types Targets targets.bpf.c
