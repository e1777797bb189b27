package values

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// message writes fields in order, from 1 on: numbers as varints, texts, bytes, and messages in it as bytes.
func message(fields ...any) (b []byte) {
	for i, f := range fields {
		tag := uint64(i+1) << 3
		switch f := f.(type) {
		case int:
			b = binary.AppendUvarint(binary.AppendUvarint(b, tag), uint64(f))
		case uint64: // fixed
			b = binary.LittleEndian.AppendUint64(binary.AppendUvarint(b, tag|1), f)
		case uint32:
			b = binary.LittleEndian.AppendUint32(binary.AppendUvarint(b, tag|5), f)
		case string:
			b = append(binary.AppendUvarint(binary.AppendUvarint(b, tag|2), uint64(len(f))), f...)
		case []byte:
			b = append(binary.AppendUvarint(binary.AppendUvarint(b, tag|2), uint64(len(f))), f...)
		}
	}
	return b
}

func noise(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

var trace1, trace2 = [16]byte{1}, [16]byte{2}

func packedInts(all ...uint64) (b []byte) {
	for _, v := range all {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// TestValues: what one message says is found in another, wherever it is there, and nothing else is.
func TestValues(t *testing.T) {
	for name, c := range map[string]struct {
		a, b []byte
		meet bool
	}{
		"a text":                        {message("sku-0001"), message(7, "sku-0001"), true},
		"a short text":                  {message("EUR"), message(message("EUR")), true},
		"another text":                  {message("sku-0001"), message("sku-0002"), false},
		"a text that can be a message":  {message("\x12\x01a"), message(5, "\x12\x01a"), true},
		"deep down":                     {message(message(message(message("order-1234")))), message("order-1234"), true},
		"a number":                      {message(12345), message(message(0, 12345)), true},
		"a small number":                {message(3), message(0, 3), true},
		"yes is not enough":             {message(1, 0), message(1, 0), false},
		"fixed here, varint there":      {message(uint64(123456)), message(123456), true},
		"of 32 bits":                    {message(uint32(123456)), message(123456), true},
		"a number as text":              {message(123456), message("123456"), true},
		"an ID in a path":               {message("ord-1234"), message("customers/17/orders/ord-1234:confirm"), true},
		"a word without digits":         {message("kettle"), message("a kettle of 2 liters"), false},
		"one of packed numbers":         {message(packedInts(5, 100_000, 100_001)), message(100_001), true},
		"the first of packed numbers":   {message(packedInts(100_000, 100_001)), message(100_000), true},
		"bytes":                         {message(noise(1, 16)), message(message(2, noise(1, 16))), true},
		"long bytes":                    {message(noise(1, 100_000)), message(message(2, noise(1, 100_000))), true},
		"long bytes, but for the last":  {message(noise(1, 100_000)), message(append(noise(1, 100_000)[:99_999], 'x')), false},
		"long text":                     {message(strings.Repeat("long ", 1000)), message(2, strings.Repeat("long ", 1000)), true},
		"nothing":                       {nil, message("sku-0001"), false},
		"empty texts":                   {message("", ""), message(""), false},
		"the same name of another kind": {message(message("x", 4)), message(message("y", 5)), false},
	} {
		a, b := Scan(trace1, c.a), Scan(trace2, c.b)
		if !a.Whole || !b.Whole {
			t.Errorf("%s: not all was looked at", name)
		}
		if meet(a.values, b.values) != c.meet || meet(b.values, a.values) != c.meet {
			t.Errorf("%s: %v", name, !c.meet)
		}
	}
}

// TestBlobs: the pieces of 1 KiB and more are told of, the smallest such, and the same ones wherever they are; in another trace they are others.
func TestBlobs(t *testing.T) {
	picture, text := noise(1, 2500), strings.Repeat("It has been said before. ", 100)
	list := [][]byte{}
	for i := range 100 {
		list = append(list, noise(uint64(i), 1024+i))
	}
	all := []any{}
	for _, b := range list {
		all = append(all, message("name", b))
	}
	many := Scan(trace1, message(all...))
	if len(many.Blobs) != MaxBlobs || !many.Whole {
		t.Fatalf("%d blobs, whole: %v", len(many.Blobs), many.Whole)
	}
	for _, kept := range many.Blobs { // and of few, those that are kept of many
		one := Scan(trace1, message(message(3, list[kept.Size-1024])))
		if !slices.Equal(one.Blobs, []Blob{kept}) {
			t.Errorf("%v, want %v", one.Blobs, kept)
		}
	}
	for name, c := range map[string]struct {
		body  []byte
		sizes []int
	}{
		"a picture in a message":  {message("x", message("y", picture)), []int{2500}},
		"two":                     {message(picture, text), []int{2500, 2500}},
		"twice the same":          {message(picture, message(picture)), []int{2500}},
		"of 1023 bytes":           {message("x", 7, message(noise(1, 1010))), nil},
		"of 1024 bytes":           {message(noise(1, 1024)), []int{1024}},
		"a message of small ones": {message(5, message(all[0].([]byte)[:6], bytes.Repeat(message("abc", 5), 200))), []int{1400}},
		"a body of small ones":    {bytes.Repeat(message("abc", 5), 200), []int{1400}},
		"no protobuf":             {[]byte(strings.Repeat("{json}", 200)), []int{1200}},
		"large":                   {message(noise(1, 10<<20)), []int{10 << 20}},
		"nothing":                 {nil, nil},
	} {
		var sizes []int
		here, there := Scan(trace1, c.body), Scan(trace2, c.body)
		for i, b := range here.Blobs {
			sizes = append(sizes, b.Size)
			if i < len(there.Blobs) && slices.ContainsFunc(there.Blobs, func(o Blob) bool { return o.Hash == b.Hash }) {
				t.Errorf("%s: it is the same in another trace", name)
			}
		}
		if !slices.Equal(sizes, c.sizes) {
			t.Errorf("%s: %v, want %v", name, sizes, c.sizes)
		}
	}
	first := Scan(trace1, message(noise(1, 200_000)))
	other := noise(1, 200_000)
	other[199_999]++
	if second := Scan(trace1, message(other)); first.Blobs[0].Hash == second.Blobs[0].Hash {
		t.Error("a blob is the same with another end")
	}
}

// TestBounds: what is too much, too deep or no protobuf is not said to have been looked at, and costs no more than the bounds have.
func TestBounds(t *testing.T) {
	deep := message("deep down here")
	for range 1000 {
		deep = message(deep)
	}
	var wide []byte
	for i := range 1 << 20 {
		wide = binary.AppendUvarint(append(wide, 8), uint64(i))
	}
	nested := bytes.Repeat([]byte{8, 2}, 1<<20)
	for range 14 {
		nested = message(nested)
	}
	for name, b := range map[string][]byte{
		"deep": deep, "wide": wide, "nested and wide": nested, "cut": message("a text")[:5], "no field": {0, 1}, "a group": {0x0b, 0x0c}, "a length of much": {0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"many texts": bytes.Repeat(message(noise(1, 900), noise(2, 900), noise(3, 900)), 1000),
	} {
		got := Scan(trace1, b)
		if got.Whole || len(got.values) > maxValues || len(got.Blobs) > MaxBlobs {
			t.Errorf("%s: whole %v, %d values, %d blobs", name, got.Whole, len(got.values), len(got.Blobs))
		}
	}
}

// FuzzScan: whatever comes, it is looked at within bounds, says the same each time, and a message that has it says what it says.
func FuzzScan(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(message("sku-0001", 12345, message(uint64(7), "a/b-12"), packedInts(1, 2, 300)))
	f.Add(message(noise(1, 1500), "x"))
	f.Add([]byte{0x0b, 0x0c})
	f.Fuzz(func(t *testing.T, b []byte) {
		had := bytes.Clone(b)
		one, again := Scan(trace1, b), Scan(trace1, b)
		if !bytes.Equal(had, b) || !slices.Equal(one.values, again.values) || !slices.Equal(one.Blobs, again.Blobs) || one.Whole != again.Whole {
			t.Fatal("it says something else the second time")
		}
		if blind := Read(b); blind.Whole && !slices.Equal(blind.values, one.values) && one.Whole || len(blind.Blobs) > 0 {
			t.Fatal("without blobs it says something else")
		}
		if mute := Blobs(trace1, b); mute.Whole && one.Whole && !slices.Equal(mute.Blobs, one.Blobs) || len(mute.values) > 0 {
			t.Fatal("without values it says something else")
		}
		if len(one.values) > maxValues || len(one.Blobs) > MaxBlobs || !slices.IsSorted(one.values) {
			t.Fatalf("%d values, %d blobs", len(one.values), len(one.Blobs))
		}
		for _, blob := range one.Blobs {
			if blob.Size < MinBlob || blob.Size > len(b) {
				t.Fatalf("a blob of %d bytes, of %d", blob.Size, len(b))
			}
		}
		in := Scan(trace1, message("around", b))
		if one.Whole && in.Whole {
			for _, v := range one.values {
				if _, has := slices.BinarySearch(in.values, v); !has {
					t.Fatal("a message that has it does not say all that it says")
				}
			}
			if len(one.Blobs) > 0 && !slices.Equal(one.Blobs, in.Blobs) {
				t.Fatalf("%v alone, %v in a message", one.Blobs, in.Blobs)
			}
		}
	})
}

func BenchmarkScan(b *testing.B) {
	items := []any{}
	for i := range 20 {
		items = append(items, message(fmt.Sprintf("sku-%04d", i), i, 1000+i, "A chair of oak"))
	}
	for name, body := range map[string][]byte{"64B": message("sku-0001", 3, "a customer who has a name"), "1KiB": message(items...), "4KiB blob": message("sku-0001", noise(1, 4096)), "1MiB blob": message("sku-0001", noise(1, 1<<20))} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Scan(trace1, body)
			}
		})
		b.Run(name+" alone", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Blobs(trace1, body)
			}
		})
	}
}
