package vhostuser

// Features that every device of this package offers (virtio 1.2, section 6).
const (
	FeatureIndirectDesc = 1 << 28 // VIRTIO_RING_F_INDIRECT_DESC
	FeatureEventIdx     = 1 << 29 // VIRTIO_RING_F_EVENT_IDX
	FeatureVersion1     = 1 << 32 // VIRTIO_F_VERSION_1

	featureProtocol = 1 << 30 // VHOST_USER_F_PROTOCOL_FEATURES
	commonFeatures  = FeatureIndirectDesc | FeatureEventIdx | FeatureVersion1 | featureProtocol
)
