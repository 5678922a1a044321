#!/bin/sh
# Installs what the tests need beside Go, git and make, on Debian 12 as root. Silent and quick where it is there.
set -eu

# The compiler of the BPF objects is pinned: make test compares its output with the committed files.
packages='clang-19 llvm-19 libbpf-dev gcc g++ libc6-dev libc6-dbg binutils util-linux bpftrace linux-perf
	clang-format-19 shellcheck systemd'

# rustup's compiler is as good as Debian's.
if ! command -v rustc >/dev/null && [ ! -x "${HOME:-/root}/.cargo/bin/rustc" ]; then
	packages="$packages rustc"
fi

missing=
for package in $packages; do
	case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true) in
	'install ok installed') ;;
	*) missing="$missing $package" ;;
	esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "The tests need packages that are not installed; as root: apt-get install$missing" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Lists that are there are tried first; they may be missing (an image) or old (a file that is no longer on the mirror).
install() {
	# shellcheck disable=SC2086 # words, on purpose
	apt-get install -y -q --no-install-recommends $1 >"$log" 2>&1
}
install "$missing" && exit 0
apt-get update -q >"$log" 2>&1 || {
	echo "apt-get update failed, so that these cannot be installed:$missing" >&2
	tail -n 5 "$log" >&2
	exit 1
}
install "$missing" && exit 0

# One by one, to name the one at fault.
for package in $missing; do
	install "$package" || {
		echo "The tests need the package $package, which cannot be installed:" >&2
		grep -E '^(E|Err):?' "$log" >&2 || tail -n 5 "$log" >&2
		exit 1
	}
done
