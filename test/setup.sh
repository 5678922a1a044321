#!/bin/sh
# Installs what the tests need beside Go, git and make, on Debian 12 as root. Silent and quick where it is there.
#
#	test/setup.sh [bench]	with the software that make bench samples
set -eu

# The compiler of the BPF objects is pinned: make test compares its output with the committed files.
packages='clang-19 llvm-19 libbpf-dev gcc g++ musl-tools libc6-dev libc6-dbg binutils util-linux bpftrace linux-perf
	clang-format-19 shellcheck systemd cpio gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross
	qemu-user'

# rustup's compiler is as good as Debian's.
if ! command -v rustc >/dev/null && [ ! -x "${HOME:-/root}/.cargo/bin/rustc" ]; then
	packages="$packages rustc"
fi
# They build the page, and ClickHouse comes by npm (test/engines/setup.sh). Node.js may be from elsewhere.
command -v node >/dev/null || packages="$packages nodejs"
command -v npm >/dev/null || packages="$packages npm"
# Some of it is services. They are not wanted here, neither now nor at the next boot.
services='redis-server nginx postgresql'
if [ "${1:-}" = bench ]; then
	packages="$packages redis-server redis-tools nginx wrk postgresql openssl xz-utils python3"
fi

missing=
for package in $packages; do
	case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true) in
	'install ok installed') ;;
	*) missing="$missing $package" ;;
	esac
done
# Debian 12's own emulator, 7.2, does not start kernel 6.12; that of its backports does.
emulators='qemu-system-x86 qemu-system-arm'
new_emulator() {
	case $(qemu-system-x86_64 --version 2>/dev/null) in
	*"version "[1-8].* | '') return 1 ;;
	esac
	command -v qemu-system-aarch64 >/dev/null
}
if new_emulator; then
	emulators=
fi
[ -n "$missing$emulators" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "The tests need packages that are not installed; as root: apt-get install$missing $emulators" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
sources=$(mktemp -d)
trap 'rm -rf "$log" "$sources"; unwanted' EXIT

# policy-rc.d is asked whether a package may start what it brings.
policy=/usr/sbin/policy-rc.d
unwanted=
for service in $services; do
	case " $missing " in *" $service "*) unwanted="$unwanted $service" ;; esac
done
if [ -n "$unwanted" ] && [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
else
	policy=
fi
unwanted() {
	[ -z "$policy" ] || rm -f "$policy"
	for service in $unwanted; do
		systemctl --quiet disable "$service" >/dev/null 2>&1 || true
	done
}

# The host's lists, and the backports beside them for this once: what apt knows afterwards is what it knew before.
backports() {
	mkdir -p "$sources/lists/partial" "$sources/parts"
	cp /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list "$sources/parts/" 2>/dev/null || true
	cp /etc/apt/sources.list "$sources/parts/host.list" 2>/dev/null || true
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main" \
		>"$sources/parts/backports.list"
	for command in update "install -y --no-install-recommends -t bookworm-backports $emulators"; do
		# shellcheck disable=SC2086 # words, on purpose
		apt-get -q -oDir::Etc::sourcelist=/dev/null -oDir::Etc::sourceparts="$sources/parts" \
			-oDir::State::Lists="$sources/lists" -oAPT::Sandbox::User=root $command >"$log" 2>&1 || return 1
	done
}
if [ -n "$emulators" ] && ! backports; then
	echo "The tests need QEMU 9 or newer ($emulators from bookworm-backports), which cannot be installed:" >&2
	grep -E '^(E|Err):?' "$log" >&2 || tail -n 5 "$log" >&2
	exit 1
fi
[ -n "$missing" ] || exit 0

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
