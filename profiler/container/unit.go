package container

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Unit finds the systemd unit in the paths: the innermost service, or else the innermost scope. "" where there is neither.
//
//	/user.slice/user-1000.slice/user@1000.service/app.slice/app-web\x2dserver.service  ->  app-web-server.service
//	/user.slice/user-1000.slice/session-2.scope                                        ->  session-2.scope
func Unit(paths []string) string {
	for _, kind := range []string{".service", ".scope"} {
		for _, path := range paths {
			if name, _ := innermost(path, kind); name != "" {
				return unescape(name)
			}
		}
	}
	return ""
}

// Service is the name of the systemd service that the process is part of, without its suffix: what it could be called by. "" where there is
// none, or none that tells what runs in it: neither a user's manager (user@1000.service) does, nor the runtime around a container.
func Service(paths []string) string {
	for _, path := range paths {
		name, inside := innermost(path, ".service")
		if name == "" || strings.HasPrefix(name, "user@") || ID([]string{inside}) != "" || PodUID([]string{inside}) != "" {
			continue
		}
		return strings.TrimSuffix(unescape(name), ".service")
	}
	return ""
}

// innermost gives the last part of a path with a suffix, and what is inside of it.
func innermost(path, suffix string) (name, inside string) {
	for rest := path; rest != ""; {
		slash := strings.LastIndexByte(rest, '/')
		if part := rest[slash+1:]; len(part) > len(suffix) && strings.HasSuffix(part, suffix) {
			return part, path[len(rest):]
		}
		rest = rest[:max(slash, 0)]
	}
	return "", ""
}

// unescape undoes what systemd does to characters that have no place in a name, \x2d for the dash. A name stays as it is where that would make
// anything that is no visible text, or a slash: whoever may make cgroups chooses their names.
func unescape(name string) string {
	if !strings.Contains(name, `\x`) {
		return name
	}
	var plain []byte
	for i := 0; i < len(name); i++ {
		if strings.HasPrefix(name[i:], `\x`) && len(name) >= i+4 {
			if b, err := strconv.ParseUint(name[i+2:i+4], 16, 8); err == nil {
				plain = append(plain, byte(b))
				i += 3
				continue
			}
		}
		plain = append(plain, name[i])
	}
	text := string(plain)
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r == '/' || !unicode.IsPrint(r) }) {
		return name
	}
	return text
}
