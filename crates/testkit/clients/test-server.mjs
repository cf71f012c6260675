// A Socket.IO server of the reference implementation, to test the driver itself.
import { Server } from "socket.io";

const io = new Server(0, { connectionStateRecovery: {} });
io.use((socket, next) => {
  if (socket.handshake.auth.token === "bad") {
    next(Object.assign(new Error("Invalid token"), { data: { code: "invalid_token" } }));
  } else next();
});
io.on("connection", (socket) => {
  socket.on("echo", (...args) => args.pop()(...args));
  socket.on("mirror", (...args) => socket.emit("mirrored", ...args));
  socket.on("join", (room, done) => {
    socket.join(room);
    done("joined");
  });
  socket.on("number", (room, from, to) => {
    for (let n = from; n <= to; n++) io.to(room).emit("numbered", { s: room, n });
  });
  socket.on("question", async (done) => {
    const answer = await socket.timeout(5_000).emitWithAck("ask", 6);
    done(answer);
  });
});
io.httpServer.on("listening", () => console.log(`listening ${io.httpServer.address().port}`));
