//! The controller without its sockets: step(Event) -> Effects
