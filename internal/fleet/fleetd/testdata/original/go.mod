// The unmodified sources of fleet 1.0.0, with what they import: releases of their time
// where the module proxy has them. original_test.go builds fleetctl of it.
module original

go 1.26.0

require (
	github.com/coreos/etcd v3.3.27+incompatible
	github.com/coreos/fleet v1.0.0
	github.com/coreos/go-systemd v0.0.0-20190321100706-95778dfbb74e
	github.com/golang/protobuf v1.2.0
	github.com/prometheus/client_golang v0.8.0
	github.com/spf13/cobra v0.0.1
	github.com/spf13/pflag v1.0.0
	google.golang.org/api v0.1.0
	google.golang.org/grpc v1.17.0
)

require (
	github.com/coreos/go-semver v0.3.1 // indirect
	github.com/gogo/protobuf v1.3.2 // indirect
	github.com/jonboulle/clockwork v0.5.0 // indirect
	github.com/json-iterator/go v1.1.12 // indirect
	github.com/modern-go/reflect2 v1.0.2 // indirect
	github.com/vishvananda/netlink v1.3.1 // indirect
	golang.org/x/crypto v0.58.0 // indirect
)
