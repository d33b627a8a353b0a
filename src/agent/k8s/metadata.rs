//! The metadata of an object, as far as they are needed, and what makes a type of ours one that can be watched.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};

use crate::policy::names::own_uid;

/// The metadata of an object whose labels are of no interest.
pub(super) fn without_labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Few {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
    }
    let Few { name, namespace, uid, resource_version, creation_timestamp } = Few::deserialize(deserializer)?;
    Ok(ObjectMeta { name, namespace, uid, resource_version, creation_timestamp, ..ObjectMeta::default() })
}

/// The metadata of an object that is selected by its labels. A mirror of a static pod has the uid that kubelet tells the
/// runtime instead of the one that the API server gave the mirror.
pub(super) fn with_labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Few {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<Annotations>,
    }
    #[derive(Deserialize)]
    struct Annotations {
        #[serde(rename = "kubernetes.io/config.hash")]
        hash: Option<String>,
        #[serde(rename = "kubernetes.io/config.mirror")]
        mirror: Option<String>,
    }
    let few = Few::deserialize(deserializer)?;
    let static_uid = few.annotations.and_then(|Annotations { hash, mirror }| static_uid(hash?, &mirror?));
    let (namespace, name) =
        (few.namespace.as_deref().unwrap_or_default(), few.name.as_deref().unwrap_or_default());
    let static_uid = static_uid.map(|hash| own_uid(&hash, namespace, name));
    Ok(ObjectMeta {
        name: few.name,
        namespace: few.namespace,
        uid: static_uid.or(few.uid),
        resource_version: few.resource_version,
        labels: few.labels,
        ..ObjectMeta::default()
    })
}

/// Anybody may write annotations, so that of a pod must not be able to name another pod: those of others have dashes, the
/// hash has none, and [`own_uid`] tells those of two static pods apart.
fn static_uid(hash: String, mirror: &str) -> Option<String> {
    let is_hash = hash.len() == 32 && hash.bytes().all(|it| it.is_ascii_hexdigit());
    (is_hash && hash == mirror).then_some(hash)
}

/// Has a type stand for an object of the API, of which it has some of the fields.
macro_rules! stands_for {
    ($few:ty, $whole:ty, $scope:ty) => {
        impl kube::core::Resource for $few {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::core::Resource>::kind(&())
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::core::Resource>::group(&())
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::core::Resource>::version(&())
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::core::Resource>::plural(&())
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(super) use stands_for;
