//! What a conf means to a DEL: as little as possible.
//!
//! A conf may have become invalid since the ADD, and its pods must still go. The record in the store says
//! what is to be removed; of the conf only what leads to that record is needed.

use std::path::PathBuf;

use super::log::LogConf;
use super::network::{AddressManagement, Network, conclude, read_name};
use super::role::{Role, Types, read_data_dir};
use crate::cni::conf::Conf;
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;
use crate::cni::json::Document;
use crate::cni::version::SpecVersion;

/// What leads to the record of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub name: NetworkName,
    /// `cniVersion`, in which is answered.
    pub version: SpecVersion,
    /// The part that ferrule plays, as far as the conf still tells.
    pub role: Role,
    /// The other IPAM plugin that has to be told, if there is one: a plain file name.
    pub delegate: Option<String>,
    /// The store's directory, an absolute path.
    pub data_dir: PathBuf,
    /// `log`; as if unsaid where it is unusable.
    pub log: LogConf,
}

impl Removal {
    /// Reads what is needed and nothing else.
    ///
    /// # Errors
    /// Code 7 if `name` or `dataDir` is unusable: without them nobody knows where the record is.
    pub fn read(conf: &Conf) -> Result<Self, CniError> {
        // Its problems are of no interest.
        let lenient = Document::new(&conf.document);
        let types = Types::read(&lenient.root());
        let log = match types.role() {
            Role::Main => LogConf::read(&lenient.root()),
            Role::Ipam => LogConf::default(),
        };

        let document = Document::new(&conf.document);
        let name = read_name(&document.root());
        let data_dir = read_data_dir(&document.root(), types);
        let name = conclude(name, document.into_problems())?;
        let delegate = types.delegate().map(str::to_owned);
        Ok(Self { name, version: conf.version, role: types.role(), delegate, data_dir, log })
    }

    /// What removes attachments of `network`, for the undo of an ADD and for GC.
    pub fn of(network: &Network) -> Self {
        let delegate = match &network.address_management {
            AddressManagement::Delegate(name) => Some(name.clone()),
            AddressManagement::Ranges(_) => None,
        };
        Self {
            name: network.name.clone(),
            version: network.version,
            role: network.role,
            delegate,
            data_dir: network.data_dir.clone(),
            log: network.log.clone(),
        }
    }
}
