// Package proto holds the shop's service definitions and how their Go code is made.
//
// It takes protoc 3.21 or newer, protoc-gen-go v1.36 and protoc-gen-go-grpc
// v1.5.1 on PATH; see the README of the shop.
package proto

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative shop/catalog/v1/catalog.proto shop/inventory/v1/inventory.proto shop/pricing/v1/pricing.proto shop/orders/v1/orders.proto shop/orders/v1/events.proto shop/mailer/v1/mailer.proto
