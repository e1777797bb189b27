package seed

import (
	"bytes"
	"image/png"
	"reflect"
	"testing"
)

func TestProductsAreTheSameEveryTime(t *testing.T) {
	first, second := Products(30), Products(20)
	if !reflect.DeepEqual(first[:20], second) {
		t.Error("two calls made different products")
	}
	if p := first[0]; p.SKU != "sku-0001" || p.UnitCents != 4430 {
		t.Errorf("the first product is %s at %d cents", p.SKU, p.UnitCents)
	}
	for _, p := range first {
		if p.Name == "" || p.Category == "" || p.Description == "" || p.UnitCents < 500 {
			t.Errorf("product %+v", p)
		}
		if _, err := png.Decode(bytes.NewReader(p.Thumbnail)); err != nil || len(p.Thumbnail) < 1024 {
			t.Errorf("%s: thumbnail of %d bytes: %v", p.SKU, len(p.Thumbnail), err)
		}
	}
}
