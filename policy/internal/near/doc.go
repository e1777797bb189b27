// Package near keeps answers of unary methods without side effects near their
// caller: a [Keyer] tells which requests are the same, a [Cache] keeps answers for
// a while, and [Flights] lets identical calls under way share one.
package near
