//! `/v1/audit/tlog/…`: the log as C2SP tlog-tiles, for monitors and witnesses that exist already. Source: <https://c2sp.org/tlog-tiles>.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};

use crate::{
    audit::merkle::TILE,
    vault::{Tile, TileKind, VaultError},
};

use crate::api::{
    Api, Problem,
    extract::{ApiRequest, PathId},
    problem::{IntoProblem as _, Problems},
};

/// The route. The rest of the path has slashes, which the document cannot say.
pub(in crate::api) const ROUTE: &str = "/v1/audit/tlog/{*id}";

/// A resource of a tiled log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Resource {
    Checkpoint,
    Tile(Tile),
}

impl PathId for Resource {
    fn read(text: Option<&str>) -> Result<Self, VaultError> {
        const EXPECTED: &str = "path: expected checkpoint, tile/LEVEL/INDEX or tile/entries/INDEX, where INDEX is as x001/x234/067, with .p/WIDTH after it \
                                if the tile is not complete";
        resource(text.unwrap_or_default()).ok_or_else(|| VaultError::InvalidRequest(EXPECTED.into()))
    }
}

fn resource(path: &str) -> Option<Resource> {
    if path == "checkpoint" {
        return Some(Resource::Checkpoint);
    }
    let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => TileKind::Entries,
        level => TileKind::Hashes { level: number(level).filter(|level| *level < 64)?.try_into().ok()? },
    };
    let (index, width) = match rest.split_once(".p/") {
        Some((index, width)) => (index, number(width).filter(|width| (1..TILE).contains(width))?),
        None => (rest, TILE),
    };
    Some(Resource::Tile(Tile { kind, index: tile_index(index)?, width }))
}

/// An index in groups of three digits, all but the last with an x before them.
fn tile_index(text: &str) -> Option<u64> {
    let (more, last) = text.rsplit_once('/').map_or((None, text), |(more, last)| (Some(more), last));
    let groups = more.into_iter().flat_map(|more| more.split('/')).map(|group| group.strip_prefix('x')).chain([Some(last)]);
    let mut index = 0_u64;
    for (place, group) in groups.enumerate() {
        let group = group.filter(|group| group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit()))?;
        // No group more than needed, so that each tile has one path.
        if place == 0 && more.is_some() && group == "000" {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(group.parse().ok()?)?;
    }
    Some(index)
}

/// A number without sign and leading zeros.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// Read the log as tiles (C2SP tlog-tiles)
///
/// `checkpoint` is the newest signed checkpoint as text; `tile/{level}/{index}` has hashes of the Merkle tree, `tile/entries/{index}` entries. The rest of the path
/// has slashes as they are. One audit entry covers the reads of a caller for a minute.
#[utoipa::path(get, path = "/v1/audit/tlog/{id}", operation_id = "audit.read-tiles", tag = "audit", params(("id" = String, Path, description = "`checkpoint`, `tile/0/x001/067`, `tile/0/x001/067.p/5` or `tile/entries/000`, with its slashes")), responses((status = 200, body = String, content_type = "application/octet-stream", description = "The bytes of the resource. The checkpoint is text/plain"), Problems))]
pub(in crate::api) async fn read(State(api): State<Arc<Api>>, ask: ApiRequest<Resource>) -> Result<Response, Problem> {
    match ask.path {
        Resource::Checkpoint => {
            let note = api.vault.read_tiled_checkpoint(&ask.call).await.or_problem(&ask.call)?.into_value();
            Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], note).into_response())
        }
        Resource::Tile(tile) => {
            let bytes = api.vault.read_tile(&ask.call, tile).await.or_problem(&ask.call)?.into_value();
            Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tile_has_one_path() {
        let tile = |kind, index, width| Some(Resource::Tile(Tile { kind, index, width }));
        for (path, expected) in [
            ("checkpoint", Some(Resource::Checkpoint)),
            ("tile/0/000", tile(TileKind::Hashes { level: 0 }, 0, 256)),
            ("tile/0/x001/x234/067", tile(TileKind::Hashes { level: 0 }, 1_234_067, 256)),
            ("tile/63/999.p/255", tile(TileKind::Hashes { level: 63 }, 999, 255)),
            ("tile/entries/x001/000.p/1", tile(TileKind::Entries, 1000, 1)),
        ] {
            assert_eq!(resource(path), expected, "{path}");
        }
        for wrong in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/64/000",
            "tile/00/000",
            "tile/+1/000",
            "tile/-1/000",
            "tile/0/0",
            "tile/0/0000",
            "tile/0/001/234",
            "tile/0/x001",
            "tile/0/x001/x234",
            "tile/0/x000/001",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p",
            "tile/0/000/",
            "tile/data/000",
            "tile/0/x18446744073709/552",
            "tile/0/x999/x999/x999/x999/x999/x999/999",
            "checkpoint/",
            "/checkpoint",
        ] {
            assert_eq!(resource(wrong), None, "{wrong}");
        }
    }
}
