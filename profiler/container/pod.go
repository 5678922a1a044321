package container

import "strings"

// PodUID finds the uid of a Kubernetes pod in the paths: of the innermost one, where pods lie in pods. "" where there is none.
// The kubelet names the cgroup of a pod by its driver:
//
//	/kubepods/burstable/pod5f3a2b1c-9d8e-4f7a-b6c5-d4e3f2a1b0c9             cgroupfs
//	/.../kubepods-burstable-pod5f3a2b1c_9d8e_4f7a_b6c5_d4e3f2a1b0c9.slice   systemd, to which - is a separator
//
// The uid of a pod of a node's own manifests (a static pod) is a hash of 32 digits.
func PodUID(paths []string) (uid string) {
	for _, path := range paths {
		inKubepods := false
		for part := range strings.SplitSeq(path, "/") {
			part, _, _ = strings.Cut(part, ":") // containerd without systemd: kubepods-podUID.slice:cri-containerd:ID
			inKubepods = inKubepods || strings.Contains(part, "kubepods")
			if !inKubepods {
				continue
			}
			name := part
			if slice, ok := strings.CutSuffix(part, ".slice"); ok {
				name = slice[strings.LastIndexByte(slice, '-')+1:]
			}
			if found, ok := strings.CutPrefix(name, "pod"); ok {
				if found = strings.ReplaceAll(found, "_", "-"); isUID(found) {
					uid = found
				}
			}
		}
		if uid != "" {
			return uid
		}
	}
	return ""
}

// isUID knows 5f3a2b1c-9d8e-4f7a-b6c5-d4e3f2a1b0c9, and the same without dashes.
func isUID(s string) bool {
	const digits, dashes = 32, 4
	switch len(s) {
	case digits:
		return isHexadecimal(s)
	case digits + dashes:
		return s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' && isHexadecimal(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])
	}
	return false
}
