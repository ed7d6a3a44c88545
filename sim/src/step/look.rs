//! What is the case at a moment, told to people and machines.

use std::collections::BTreeMap;

use fusion_history::{Body, Event};
use serde_json::{Value, json};

use super::Reply;
use super::change::short;
use super::moment::{Moment, StoredRow};
use crate::fabric::{ConnectionState, FaultReport, MachineState, Place};

/// How many rows of a table are told when all tables are.
const ROWS_TOLD: usize = 8;

/// All hosts, what is on its way, and the faults in force.
pub(super) fn overview(moment: &Moment) -> Reply {
    let mut text = format!("at {:.6} s\n", moment.world.at_us as f64 / 1e6);
    for (name, machine) in &moment.world.machines {
        let rows = moment.rows(name).len();
        let open = moment.world.connections.iter().filter(|connection| is_of(connection, name)).count();
        let MachineState { life, tasks, .. } = machine;
        text.push_str(&format!(
            "{name:<14} {life:<8} {rows:>5} rows  {open:>3} connections  {tasks:>4} tasks\n"
        ));
    }
    let (in_flight, datagrams) = on_the_way(moment);
    text.push_str(&format!("on their way: {in_flight} segments, {datagrams} datagrams\n"));
    text.push_str(&faults(moment.world.faults.iter()));
    let rows: BTreeMap<_, _> = moment.hosts().map(|name| (name, moment.rows(name).len())).collect();
    Reply { text, value: json!({"at_us": moment.world.at_us, "world": moment.world, "rows": rows}) }
}

/// A host, or what all hosts hold of an object.
pub(super) fn look(
    moment: &Moment,
    past: &[Event],
    what: &str,
    which: Option<&str>,
) -> Result<Reply, String> {
    if let Some(machine) = moment.world.machines.get(what) {
        return host(moment, what, machine, which);
    }
    let is_table = |row: &StoredRow| row.table == what;
    let is_held = moment.hosts().any(|host| moment.rows(host).iter().any(is_table));
    let is_told =
        past.iter().any(|event| matches!(&event.body, Body::State { concept, .. } if concept == what));
    if is_held || is_told {
        return object(moment, past, what, which);
    }
    moment.known_host(what).map(|_| unreachable!("hosts were looked at first"))
}

fn host(moment: &Moment, name: &str, machine: &MachineState, table: Option<&str>) -> Result<Reply, String> {
    let rows: Vec<&StoredRow> =
        moment.rows(name).iter().filter(|row| table.is_none_or(|table| row.table == table)).collect();
    if let (Some(table), true) = (table, rows.is_empty()) {
        let mut known: Vec<_> = moment.rows(name).iter().map(|row| row.table.as_str()).collect();
        known.dedup();
        return Err(format!("{name} has no row in `{table}`; it has {}", known.join(", ")));
    }
    let connections: Vec<_> =
        moment.world.connections.iter().filter(|connection| is_of(connection, name)).collect();
    let striking: Vec<_> =
        moment.world.faults.iter().filter(|report| strikes(report, name, machine)).collect();
    let legs: Vec<_> = moment.legs.iter().filter(|(of, _)| of == name).map(|(_, leg)| leg).collect();
    let value = json!({
        "host": name, "machine": machine, "rows": rows, "connections": connections, "legs": legs,
        "faults": striking,
    });
    if table.is_some() {
        let text = rows.iter().map(|row| in_full(row)).collect();
        return Ok(Reply { text, value });
    }
    let mut text = told_machine(name, machine);
    text.push_str(&faults(striking.into_iter()));
    connections.iter().for_each(|connection| text.push_str(&told_connection(connection)));
    legs.iter().for_each(|leg| {
        text.push_str(&format!("  leg {}: received {}, sent {}\n", leg.id, leg.received, leg.sent));
    });
    text.push_str(&told_rows(name, &rows));
    Ok(Reply { text, value })
}

fn told_machine(name: &str, machine: &MachineState) -> String {
    let MachineState { life, ip, datacenter, tasks, restarts, skew_us, commits_waiting, .. } = machine;
    let mut text = format!("{name}: {life}, {ip} at {datacenter}, {tasks} tasks\n");
    let mut add = |is_so: bool, line: String| {
        if is_so {
            text.push_str(&format!("  {line}\n"));
        }
    };
    add(*restarts > 0, format!("started again {restarts} times"));
    add(*skew_us != 0, format!("its wall clock is wrong by {skew_us} us"));
    add(*commits_waiting > 0, format!("{commits_waiting} commits on their way to the disk"));
    add(machine.disk_full, "its disk is full".to_owned());
    for (at, waiting) in &machine.listeners {
        add(true, format!("listens at {at}, {waiting} connections wait"));
    }
    for (at, waiting) in &machine.sockets {
        add(true, format!("datagram socket {at}, {waiting} datagrams wait"));
    }
    text
}

fn told_connection(connection: &ConnectionState) -> String {
    let ConnectionState { connection: id, from, to, state, there, back } = connection;
    let on_the_way = (there.sent - there.acknowledged) + (back.sent - back.acknowledged);
    let stalled = match there.stalled_since_us.or(back.stalled_since_us) {
        Some(since_us) => format!(", stalled since {:.3} s", since_us as f64 / 1e6),
        None => String::new(),
    };
    format!(
        "  connection {id} {} to {}: {state}, {} B there, {} B back, {on_the_way} B on their way, {} B unread{stalled}\n",
        from.host,
        to.host,
        there.sent,
        back.sent,
        there.unread + back.unread,
    )
}

/// By table, each row in a line; of a long table, its last rows.
fn told_rows(host: &str, rows: &[&StoredRow]) -> String {
    let mut tables: BTreeMap<&str, Vec<&StoredRow>> = BTreeMap::new();
    rows.iter().for_each(|row| tables.entry(&row.table).or_default().push(row));
    let mut text = String::new();
    for (table, rows) in tables {
        let hidden = rows.len().saturating_sub(ROWS_TOLD);
        let more = match hidden {
            0 => String::new(),
            _ => format!(", the first {hidden} are left out: `show {host} {table}`"),
        };
        text.push_str(&format!("  {table}: {} rows{more}\n", rows.len()));
        for row in &rows[hidden..] {
            text.push_str(&format!("    {} v{} {}\n", row.key, row.version, short(&row.value)));
        }
    }
    text
}

/// What every host holds of it, and what was last committed of it.
fn object(moment: &Moment, past: &[Event], concept: &str, which: Option<&str>) -> Result<Reply, String> {
    let is_meant = |text: &str| which.is_none_or(|which| text.contains(which));
    let mut text = String::new();
    let mut held: Vec<Value> = Vec::new();
    for host in moment.hosts() {
        let rows = moment.rows(host).iter().filter(|row| row.table == concept);
        for row in rows.filter(|row| is_meant(&row.key) || is_meant(&row.value.to_string())) {
            text.push_str(&format!("on {host}: {}", in_full(row)));
            held.push(json!({"host": host, "row": row}));
        }
    }
    let mut committed: BTreeMap<(&str, &str), &Event> = BTreeMap::new();
    for event in past {
        if let Body::State { concept: of, subject, .. } = &event.body
            && of == concept
            && is_meant(subject)
        {
            committed.insert((&event.host, subject), event);
        }
    }
    if held.is_empty() && committed.is_empty() {
        let which = which.unwrap_or_default();
        return Err(format!(
            "nobody knows a {concept} `{which}` at #{}: `show {concept}` lists them",
            moment.event.0
        ));
    }
    if !committed.is_empty() {
        text.push_str("last committed:\n");
    }
    committed.values().for_each(|event| text.push_str(&format!("{event}\n")));
    let committed: Vec<_> = committed.into_values().collect();
    Ok(Reply { text, value: json!({"concept": concept, "held": held, "committed": committed}) })
}

fn in_full(row: &StoredRow) -> String {
    let value = serde_json::to_string_pretty(&row.value).unwrap_or_default();
    format!("{} {} v{}\n{value}\n", row.table, row.key, row.version)
}

fn faults<'f>(reports: impl Iterator<Item = &'f FaultReport>) -> String {
    let line = |report: &FaultReport| {
        let fault = serde_json::to_value(&report.fault).unwrap_or_default();
        format!("  in force: {fault}, {} effects so far\n", report.effects)
    };
    reports.map(line).collect()
}

/// Whether a fault is one of this host's or of its links.
fn strikes(report: &FaultReport, name: &str, machine: &MachineState) -> bool {
    let mut places = report.fault.places();
    places.any(|place| match place {
        Place::Host(host) => host == name,
        Place::Datacenter(datacenter) => **datacenter == *machine.datacenter,
        Place::Group(group) => machine.group.as_deref() == Some(group),
        Place::Everywhere => true,
    })
}

fn is_of(connection: &ConnectionState, host: &str) -> bool {
    [&connection.from, &connection.to].iter().any(|end| &*end.host == host)
}

/// How many segments and datagrams.
fn on_the_way(moment: &Moment) -> (usize, usize) {
    let datagrams = moment.world.in_flight.iter().filter(|packet| packet.connection == 0).count();
    (moment.world.in_flight.len() - datagrams, datagrams)
}
