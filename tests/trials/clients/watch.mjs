// Ends the process where a connection is opened that leaves this machine.

import net from "node:net";

const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...given) {
  const [options] = Array.isArray(given[0]) ? given[0] : given;
  if (options.host !== "127.0.0.1") {
    console.error(`OUTBOUND ${options.host}`);
    process.exit(1);
  }
  return connect.apply(this, given);
};
