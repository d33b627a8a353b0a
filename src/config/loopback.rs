//! What a conf of type `loopback` means: its name, and the result that is passed on.

use super::network::{conclude, read_name};
use super::role::LOOPBACK_TYPE;
use crate::cni::conf::Conf;
use crate::cni::error::CniError;
use crate::cni::json::Document;
use crate::cni::result::AddResult;

/// A conf of type `loopback`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopbackConf {
    /// The result of the plugins before it.
    pub prev_result: Option<AddResult>,
}

impl LoopbackConf {
    /// Whether the conf is for the plugin `loopback`, which ferrule is as well. The reference plugin knows no `ipam`.
    pub fn is_meant(conf: &Conf) -> bool {
        let document = Document::new(&conf.document);
        document.root().text("type") == Some(LOOPBACK_TYPE)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Code 7 with every problem.
    pub fn read(conf: &Conf) -> Result<Self, CniError> {
        let document = Document::new(&conf.document);
        let root = document.root();
        let name = read_name(&root);
        let prev_result = root.member("prevResult").map(|node| AddResult::read(&node, conf.version));
        conclude(name, document.into_problems())?;
        Ok(Self { prev_result })
    }
}
