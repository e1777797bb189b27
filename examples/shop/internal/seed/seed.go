// Package seed makes the shop's goods: the same ones at every start, in every
// program.
package seed

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"strings"
	"sync"
)

// Product is one thing the shop sells.
type Product struct {
	SKU         string
	Name        string
	Category    string
	Description string
	Thumbnail   []byte // PNG, about 2.5 KiB
	UnitCents   int64
}

var (
	materials  = []string{"Oak", "Walnut", "Steel", "Linen", "Wool", "Clay", "Glass", "Copper", "Cork", "Slate"}
	goods      = []string{"Chair", "Lamp", "Kettle", "Blanket", "Bowl", "Desk", "Shelf", "Mug", "Clock", "Basket"}
	categories = []string{"living", "light", "kitchen", "bedroom", "kitchen", "office", "office", "kitchen", "living", "garden"}
	sentences  = []string{
		"Made to be used every day and to be repaired when it wears.",
		"Finished by hand in a small workshop near the sea.",
		"Ships flat in recycled cardboard, with no plastic inside.",
		"The first batch sold out in a week; this is the fourth.",
		"Wipe clean with a damp cloth and keep out of direct sun.",
		"Comes with a ten year guarantee on all moving parts.",
	}
)

// Products returns the first n products, in SKU order.
func Products(n int) []Product {
	products := make([]Product, n)
	for i := range products {
		products[i] = product(i)
	}
	return products
}

// SKU returns the SKU of product i, counted from 0.
func SKU(i int) string { return fmt.Sprintf("sku-%04d", i+1) }

func product(i int) Product {
	random := rand.New(rand.NewPCG(uint64(i), 7))
	kind := i % len(goods)
	var text []string
	for _, s := range random.Perm(len(sentences))[:4] {
		text = append(text, sentences[s])
	}
	return Product{
		SKU:         SKU(i),
		Name:        fmt.Sprintf("%s %s No. %d", materials[random.IntN(len(materials))], goods[kind], i+1),
		Category:    categories[kind],
		Description: strings.Join(text, " "),
		Thumbnail:   thumbnail(random),
		UnitCents:   int64(500 + 10*random.IntN(2000)),
	}
}

// encoders is one buffer for all thumbnails, which would be most of the work
// of a start.
var encoders pool

type pool struct{ sync.Pool }

func (p *pool) Get() *png.EncoderBuffer {
	buffer, _ := p.Pool.Get().(*png.EncoderBuffer)
	return buffer
}

func (p *pool) Put(buffer *png.EncoderBuffer) { p.Pool.Put(buffer) }

// thumbnail draws noise, which like a photograph does not compress.
func thumbnail(random *rand.Rand) []byte {
	const side = 28
	img := image.NewNRGBA(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			c := random.Uint32()
			img.SetNRGBA(x, y, color.NRGBA{R: uint8(c), G: uint8(c >> 8), B: uint8(c >> 16), A: 255})
		}
	}
	var out bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.NoCompression, BufferPool: &encoders}
	if err := encoder.Encode(&out, img); err != nil {
		panic(err) // bytes.Buffer does not fail, and the image is valid
	}
	return out.Bytes()
}
