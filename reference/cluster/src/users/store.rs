//! The rows of users: by address, and by SCIM's id.

use fusion_protocol::{Address, Code, Pii, Problem, Uuid, map::UserRecord};
use fusion_runtime::store::{Batch, Key};
use serde::{Deserialize, Serialize};

use crate::Cluster;
use crate::rows::{self, Loaded};

/// A user that this cluster serves (PRO-005).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserRow {
    pub(crate) record: UserRecord,
    /// SCIM's id.
    pub(crate) id: Uuid,
    pub(crate) display_name: Option<Pii<String>>,
    pub(crate) external_id: Option<String>,
    pub(crate) active: bool,
    /// Whether the user is being moved away: until that is decided nobody here serves them (MAP-007).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) fenced: bool,
}

/// Where the address of a SCIM id is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdRow {
    pub(crate) user: Address,
}

/// The row of a user that this cluster serves; empty for anybody else. `unchanged` on it makes a commit
/// depend on the user still being served here.
///
/// # Errors
/// `fenced` while the user is being moved away (MAP-007).
pub(crate) async fn served_here(cluster: &Cluster, user: &Address) -> Result<Loaded<UserRow>, Problem> {
    let row = held(cluster, user).await?;
    let fenced = row.value.as_ref().is_some_and(|row| row.fenced);
    if fenced { Err(Code::Fenced.into()) } else { Ok(row) }
}

/// The row of a user, fenced or not: for who moves users.
pub(crate) async fn held(cluster: &Cluster, user: &Address) -> Result<Loaded<UserRow>, Problem> {
    rows::load(&*cluster.host.store, user_key(user)).await
}

/// The user that has this SCIM id.
pub(crate) async fn by_id(cluster: &Cluster, id: Uuid) -> Result<Option<Loaded<UserRow>>, Problem> {
    let found = rows::load::<IdRow>(&*cluster.host.store, id_key(id)).await?.value;
    let Some(IdRow { user }) = found else { return Ok(None) };
    let row = served_here(cluster, &user).await?;
    let same = row.value.as_ref().is_some_and(|row| row.id == id);
    Ok(same.then_some(row))
}

/// Makes a commit depend on nobody's having this SCIM id. Answers whether that is so now.
pub(crate) async fn rely_on_free_id(cluster: &Cluster, batch: &mut Batch, id: Uuid) -> Result<bool, Problem> {
    let row = rows::load::<IdRow>(&*cluster.host.store, id_key(id)).await?;
    row.unchanged(batch);
    Ok(row.value.is_none())
}

/// Adds a user that was not there when `vacant` was loaded.
pub(crate) fn insert(batch: &mut Batch, vacant: &Loaded<UserRow>, row: &UserRow) {
    vacant.save(batch, row);
    rows::put(batch, id_key(row.id), &IdRow { user: row.record.user.clone() });
}

/// Removes a user as loaded. Its incarnation dies with the row: whoever gets the address next is
/// somebody new (NAM-004).
pub(crate) fn remove(batch: &mut Batch, row: &Loaded<UserRow>) {
    row.remove(batch);
    if let Some(user) = &row.value {
        batch.delete(id_key(user.id));
    }
}

fn user_key(user: &Address) -> Key {
    rows::key("user", &[user.as_str()])
}

fn id_key(id: Uuid) -> Key {
    rows::key("user-id", &[&id.to_string()])
}
