package shoptest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/stile-ipc/stile/examples/shop/proto/shop/catalog/v1"
	_ "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
	_ "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
	_ "github.com/stile-ipc/stile/examples/shop/proto/shop/pricing/v1"
	"github.com/stile-ipc/stile/examples/shop/shoptest"
	"github.com/stile-ipc/stile/policy"
)

// policyFile is the shop's policy.
func policyFile(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// shopMethods are those of the shop's .proto files.
func shopMethods(t *testing.T) policy.Methods {
	t.Helper()
	files := new(protoregistry.Files)
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(f.Path(), "shop/") {
			if err := files.RegisterFile(f); err != nil {
				t.Error(err)
			}
		}
		return true
	})
	return policy.MethodsOf(files)
}

func TestPolicyIsSound(t *testing.T) {
	file, err := policy.Load(policyFile(t))
	if err != nil {
		t.Fatal(err)
	}
	methods := shopMethods(t)
	if len(methods) != 11 {
		t.Errorf("%d methods, want the shop's 11", len(methods))
	}
	for _, f := range policy.Lint(file, methods) {
		t.Errorf("%s: %s", f.Severity, f.Problem.Error())
	}
	for i, m := range file.MethodConfig {
		if m.Stile.Owner == "" || m.Stile.Why == "" {
			t.Errorf("methodConfig[%d] does not say who answers for it, or why it is so", i)
		}
	}
	for name, known := range methods {
		if e := file.Effective(name, known); e.Matched.Service == "" {
			t.Errorf("nobody has decided about %s", name)
		}
	}
}

// TestPolicyShowsAll sees that the policy has an example of each part of x-stile that a
// method can use.
func TestPolicyShowsAll(t *testing.T) {
	file, err := policy.Load(policyFile(t))
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	kind := reflect.TypeFor[policy.MethodExtension]()
	for i := range kind.NumField() {
		left[kind.Field(i).Name] = true
	}
	delete(left, "Idempotency") // the .proto files say it
	for _, m := range file.MethodConfig {
		for name := range left {
			if !reflect.ValueOf(m.Stile).FieldByName(name).IsZero() {
				delete(left, name)
			}
		}
	}
	if len(left) > 0 {
		t.Errorf("no example of %v", left)
	}
}

// TestShopUnderPolicy has the shop do all that it does without a policy.
func TestShopUnderPolicy(t *testing.T) {
	for _, stile := range []string{"on", "off"} {
		t.Run(stile, func(t *testing.T) {
			testShop(t, shoptest.Config{Env: []string{"STILE=" + stile, "SHOP_POLICY=" + policyFile(t), "XDG_STATE_HOME=" + t.TempDir()}})
		})
	}
}

// TestFaultsUnderPolicy has inventory fail, and catalog dead: pages that were
// seen before can be seen, and what was ordered before can be ordered unless nobody knows the stock.
func TestFaultsUnderPolicy(t *testing.T) {
	faults := filepath.Join(t.TempDir(), "faults")
	set := func(text string) {
		if err := os.WriteFile(faults, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shop := shoptest.Start(t, shoptest.Config{
		Bin: bin, Data: t.TempDir(), Env: []string{"SHOP_POLICY=" + policyFile(t), "XDG_STATE_HOME=" + t.TempDir()},
		Args: map[string][]string{"inventory": {"--faults", faults}},
	})
	look := func(when string) {
		t.Helper()
		for _, path := range []string{"/products?limit=20", "/products/sku-0001"} {
			var answer any
			if code := ask(t, shop, "GET", path, "", &answer); code != 200 {
				t.Errorf("%s: %s: %d %v", when, path, code, answer)
			}
		}
	}
	order := func() int {
		var answer any
		return ask(t, shop, "POST", "/orders", `{"customer":"ada@example.com","items":[{"id":"sku-0001","quantity":1}]}`, &answer)
	}
	look("at first")
	if code := order(); code != 201 {
		t.Errorf("order: %d", code)
	}

	set("fail=1")
	for order() != 503 { // it takes a moment until the file is read
	}
	look("while inventory fails")
	set("")
	for order() != 201 {
	}

	shop.Process("catalog").Kill()
	look("while catalog is dead")
	if code := order(); code != 201 {
		t.Errorf("order while catalog is dead: %d", code)
	}
	shop.Restart(t, "catalog")
	look("when catalog is back")
	shop.Stop(t)
}

// TestNoPolicy starts a program with a policy file that cannot be read, and with a faulty one.
func TestNoPolicy(t *testing.T) {
	faulty := filepath.Join(t.TempDir(), "faulty.yaml")
	if err := os.WriteFile(faulty, []byte("methodConfig: [{name: [{}], timeout: 1}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{filepath.Join(t.TempDir(), "absent.yaml"): "absent.yaml", faulty: "faulty.yaml:1:"} {
		program := exec.CommandContext(t.Context(), filepath.Join(bin, "pricing"), "--listen", "127.0.0.1:0", "--policy", path)
		program.Env = append(os.Environ(), "XDG_STATE_HOME="+t.TempDir())
		out, err := program.CombinedOutput()
		if err == nil || !strings.Contains(string(out), says) || strings.Contains(string(out), "ready") {
			t.Errorf("with %s: %v\n%s", path, err, out)
		}
	}
}
