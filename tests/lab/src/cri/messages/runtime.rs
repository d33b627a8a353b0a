//! Messages about the runtime itself and its images.

/// Asks which runtime answers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionRequest {}

/// The runtime's name and versions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionResponse {
    /// For instance `containerd`.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// For instance `1.6.20~ds1`.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

/// Asks for the runtime's conditions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusRequest {}

/// What kubelet derives the node's Ready condition from.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    /// Absent only if the runtime is broken.
    #[prost(message, optional, tag = "1")]
    pub status: Option<RuntimeStatus>,
}

/// The list of conditions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RuntimeStatus {
    /// `RuntimeReady` and `NetworkReady`.
    #[prost(message, repeated, tag = "1")]
    pub conditions: Vec<RuntimeCondition>,
}

/// One condition.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RuntimeCondition {
    /// `RuntimeReady` or `NetworkReady`.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// Does it hold?
    #[prost(bool, tag = "2")]
    pub status: bool,
    /// One word, if it does not.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// A sentence, if it does not.
    #[prost(string, tag = "4")]
    pub message: String,
}

/// An answer without content; what it may contain is not looked at.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// An image by name or digest.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageSpec {
    /// For instance `docker.io/library/busybox:1`.
    #[prost(string, tag = "1")]
    pub image: String,
}

/// Asks the image service for an image.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageStatusRequest {
    /// The image.
    #[prost(message, optional, tag = "1")]
    pub image: Option<ImageSpec>,
}

/// What the image service knows.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageStatusResponse {
    /// Absent: there is no such image.
    #[prost(message, optional, tag = "1")]
    pub image: Option<Image>,
}

/// An image.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Image {
    /// The digest of its configuration.
    #[prost(string, tag = "1")]
    pub id: String,
}
