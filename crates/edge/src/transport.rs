//! How clients are connected. Each transport moves frames between a client's queue and the wire; what the frames
//! mean is decided in [`conversation`](crate::conversation) and [`plain`](crate::plain).

pub(crate) mod polling;
pub(crate) mod sse;
pub(crate) mod websocket;
