// Whatever is posted is broadcast to whoever is connected: no rights, no log, no cursor.
import { createServer } from "node:http";
import { Server } from "socket.io";

const [host, port] = process.argv[2].split(":");
const http = createServer((request, response) => {
  if (request.method !== "POST") return response.end();
  let body = "";
  request.on("data", (chunk) => (body += chunk));
  request.on("end", () => {
    io.emit("message", JSON.parse(body));
    response.end();
  });
});
const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false });
http.listen(Number(port), host);
