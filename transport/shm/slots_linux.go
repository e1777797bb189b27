package shm

// A direction's arena is cut into slots of a few sizes, each for one large payload
// at a time. Slots are numbered through, smallest first. They take address space
// only: pages exist once they were written.
//
//	slots     0…63      64…127    128…159   160…175    176…179
//	bytes     16 KiB    80 KiB    320 KiB   1,280 KiB  5,120 KiB
//
// A slot's word in the control area is 1 from when the sender has named the slot in
// a frame until the receiver is done with it, then 0. Only the receiver clears it.
var slotKinds = [...]struct{ size, count int }{
	{16 << 10, 64}, {80 << 10, 64}, {320 << 10, 32}, {1280 << 10, 16}, {5120 << 10, 4},
}

const (
	numSlots  = 64 + 64 + 32 + 16 + 4
	arenaSize = 56 << 20
	// maxLoan is the largest payload that finds a slot.
	maxLoan = 5120 << 10
)

// slotPlace is where a slot lies in its arena, in bytes.
type slotPlace struct{ at, size int }

var slots = func() (all [numSlots]slotPlace) {
	i, at := 0, 0
	for _, k := range slotKinds {
		for range k.count {
			all[i] = slotPlace{at, k.size}
			at += k.size
			i++
		}
	}
	if i != numSlots || at != arenaSize {
		panic("shm: the constants of the arena disagree")
	}
	return all
}()

// firstSlot is the first slot that takes n bytes.
func firstSlot(n int) int {
	i := 0
	for _, k := range slotKinds {
		if n <= k.size {
			break
		}
		i += k.count
	}
	return i
}
