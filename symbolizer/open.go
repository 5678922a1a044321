package symbolizer

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// openRegular opens a regular file, and looks before it does: opening a device may do something, and opening a FIFO
// would wait for its writer.
func openRegular(path string) (io.ReaderAt, int64, io.Closer, error) {
	handle, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(handle)
	f, err := openHandle(handle, path)
	if err != nil {
		return nil, 0, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, nil, err
	}
	return f, info.Size(), f, nil
}

func openHandle(handle int, path string) (*os.File, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(handle, &stat); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("not a regular file")}
	}
	return os.OpenFile("/proc/self/fd/"+strconv.Itoa(handle), os.O_RDONLY|unix.O_NONBLOCK, 0)
}
