#!/bin/sh
# Regenerates the BPF objects and bindings, and what the page is built to, in a copy of the tree, and compares them byte by byte with those
# that are committed. The paths below the copy's root are those of the tree, so that nothing in the objects depends on where it is.
set -eu
cd "$(dirname "$0")/../.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

dirs=$(grep -rl --include='*.go' '^//go:generate go tool bpf2go' . | xargs -n 1 dirname | sort -u)
cp go.mod go.sum "$copy"
for dir in $dirs; do
	mkdir -p "$copy/$dir"
	cp "$dir"/*.go "$copy/$dir"
done
# Sources and headers of all of them, because one may include another's.
find . -path ./build -prune -o \( -name '*.bpf.c' -o -name '*.bpf.h' \) -print | while read -r source; do
	mkdir -p "$copy/$(dirname "$source")"
	cp "$source" "$copy/$source"
done
find "$copy" -name '*_bpfel.*' -delete

for dir in $dirs; do
	(cd "$copy" && go generate "$dir") || {
		echo "go generate $dir failed" >&2
		exit 1
	}
done

# The page, with the packages of its lock file alone; and the tests of its parts.
page=exporter/web/page
mkdir -p "$copy/$page"
(cd "$page" && tar -c --exclude=./node_modules .) | tar -x -C "$copy/$page"
(cd "$copy/$page" && npm ci --ignore-scripts --no-audit --no-fund --silent && npm run --silent build && npm test --silent) >"$copy/page.log" 2>&1 || {
	cat "$copy/page.log" >&2
	echo "building the page failed" >&2
	exit 1
}
# What speedscope's package holds.
(cd exporter/web/speedscope && tar -c --exclude=./node_modules .) | (mkdir -p "$copy/exporter/web/speedscope" && tar -x -C "$copy/exporter/web/speedscope")
(cd "$copy/exporter/web/speedscope" && npm ci --ignore-scripts --no-audit --no-fund --silent && npm run --silent build) >&2

status=0
for dir in $dirs; do
	for file in "$dir"/*_bpfel.go "$dir"/*_bpfel.o "$copy/$dir"/*_bpfel.go "$copy/$dir"/*_bpfel.o; do
		file=$dir/$(basename "$file")
		cmp -s "$file" "$copy/$file" || echo "$file"
	done
done | sort -u >"$copy/differ"
for dir in exporter/web/assets/page exporter/web/assets/standalone exporter/web/assets/speedscope; do
	diff -rq "$dir" "$copy/$dir" >>"$copy/differ" || true
done
if [ -s "$copy/differ" ]; then
	echo "These files are not what their sources build to; run make generate, or npm run build in exporter/web/page or exporter/web/speedscope, and commit the result:" >&2
	cat "$copy/differ" >&2
	status=1
fi
exit $status
