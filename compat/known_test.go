package compat

// knownDifferences lists the cases in which a local call differs from grpc-go, and
// why it is left so; the README's table says the same. A case that no longer
// differs fails the test, so that this list stays true.
var knownDifferences = map[string]string{
	"metadata/upper case key":   "grpc-go refuses metadata keys that were not lower-cased; a local call lower-cases them",
	"compressor/advertised":     "grpc-accept-encoding names gzip and the call's own compressor, not others that are registered: grpc-go's list is internal",
	"compressor/server chooses": "grpc.SetSendCompressor and grpc.ClientSupportedCompressors need grpc-go's own stream type",
	"secure/local credentials":  "the peer's AuthInfo is stile.AuthInfo, with the kernel's identity, instead of local.Info",
}
