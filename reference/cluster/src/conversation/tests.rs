//! Conversations of one and of two clusters, over HTTP in memory.

mod chance;
mod groups;
mod pairs;
mod race;

use std::time::Duration;

use fusion_protocol::{Service, Url, UserRef};
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use super::testing::{Chat, below, texts, url_in};
