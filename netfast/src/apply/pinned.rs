//! Opens a pinned map.

use std::io;

use aya::maps::{Map, MapData, MapError};

use crate::apply::pins::Pins;

/// A pinned map as its type.
pub(super) fn open<M: TryFrom<Map, Error = MapError>>(pins: &Pins, name: &'static str) -> Result<M, ReadError> {
    let data = MapData::from_pin(pins.map(name)).map_err(|source| read_error(name, source))?;
    let map = Map::from_map_data(data).map_err(|source| read_error(name, source))?;
    M::try_from(map).map_err(|source| read_error(name, source))
}

pub(super) fn read_error(name: &'static str, source: MapError) -> ReadError {
    ReadError::Map {
        name,
        source: Box::new(source),
    }
}

/// Why the maps cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing is attached, or with other directories.
    #[error("nothing is pinned in {0}")]
    NothingPinned(String),
    /// A map cannot be opened or read.
    #[error("cannot read the map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<MapError>,
    },
}

impl ReadError {
    /// Whether privileges are missing.
    pub fn is_permission(&self) -> bool {
        match self {
            Self::NothingPinned(_) => false,
            Self::Map { source, .. } => {
                matches!(source.as_ref(), MapError::SyscallError(error)
                    if error.io_error.kind() == io::ErrorKind::PermissionDenied)
            }
        }
    }
}
