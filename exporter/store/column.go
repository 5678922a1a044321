package store

import (
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"
)

// batchRows are read at once.
const batchRows = 1024

// column reads one column of a row group whose rows have one value each.
type column struct {
	name    string
	pages   parquet.Pages
	page    parquet.Page
	values  parquet.ValueReader
	buffer  []parquet.Value
	ints    []int64
	texts   []string
	strings map[string]string // each once; nil of numbers
}

func openColumn(g parquet.RowGroup, name string, texts bool) (*column, error) {
	leaf, ok := g.Schema().Lookup(name)
	if !ok {
		return nil, fmt.Errorf("%w: no column %s", errFormat, name)
	}
	c := &column{name: name, pages: g.ColumnChunks()[leaf.ColumnIndex].Pages(), buffer: make([]parquet.Value, batchRows)}
	if texts {
		c.strings = make(map[string]string)
	}
	return c, nil
}

// read reads n values, up to batchRows, into ints or texts.
func (c *column) read(n int) error {
	c.ints, c.texts = c.ints[:0], c.texts[:0]
	for n > 0 {
		if c.values == nil {
			page, err := c.pages.ReadPage()
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("%w: column %s is short", errFormat, c.name)
			}
			if err != nil {
				return fmt.Errorf("column %s: %w", c.name, err)
			}
			c.page, c.values = page, page.Values()
		}
		got, err := c.values.ReadValues(c.buffer[:n])
		c.take(c.buffer[:got])
		n -= got
		switch {
		case errors.Is(err, io.EOF) || err == nil && got == 0:
			parquet.Release(c.page)
			c.page, c.values = nil, nil
		case err != nil:
			return fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	return nil
}

func (c *column) take(values []parquet.Value) {
	for i := range values {
		if c.strings == nil {
			c.ints = append(c.ints, values[i].Int64()) // of 32 bits too
			continue
		}
		b := values[i].ByteArray()
		text, ok := c.strings[string(b)]
		if !ok {
			text = string(b)
			c.strings[text] = text
		}
		c.texts = append(c.texts, text)
	}
}

func (c *column) close() {
	if c.page != nil {
		parquet.Release(c.page)
	}
	_ = c.pages.Close()
}

// readColumns calls visit with the values of each batch of rows of a file: ints and texts in the order of their names.
func readColumns(f *checkedFile, ints, texts []string, visit func(n int, columns []*column) error) error {
	for _, g := range f.RowGroups() {
		if err := readGroup(g, ints, texts, visit); err != nil {
			return err
		}
	}
	return nil
}

func readGroup(g parquet.RowGroup, ints, texts []string, visit func(int, []*column) error) error {
	var columns []*column
	defer func() {
		for _, c := range columns {
			c.close()
		}
	}()
	for i, name := range append(append([]string(nil), ints...), texts...) {
		c, err := openColumn(g, name, i >= len(ints))
		if err != nil {
			return err
		}
		columns = append(columns, c)
	}
	for left := g.NumRows(); left > 0; {
		n := int(min(left, batchRows))
		for _, c := range columns {
			if err := c.read(n); err != nil {
				return err
			}
		}
		if err := visit(n, columns); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

// readStackIDs adds the IDs of a file of the table stacks.
func readStackIDs(path string, ids map[int64]struct{}) (err error) {
	f, err := openChecked(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(f.asDamage(err), f.Close()) }()
	return readColumns(f, []string{"stack_id"}, nil, func(_ int, columns []*column) error {
		for _, id := range columns[0].ints {
			ids[id] = struct{}{}
		}
		return nil
	})
}
