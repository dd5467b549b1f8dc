// `node --require`: connections to Meta's host go to the port EMULATOR_PORT of this machine. The clients are as published.
const net = require("node:net");
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...given) {
  const options = Array.isArray(given[0]) ? given[0][0] : given[0];
  if (options?.host === "graph.facebook.com") {
    Object.assign(options, { host: "127.0.0.1", port: Number(process.env.EMULATOR_PORT) });
  }
  return connect.apply(this, given);
};
