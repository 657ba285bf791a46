// Prints messages of an edge node, encoded by npm's sparkplug-payload, a line
// each: topic, a blank, base64. TestPeer compares them with testdata/messages.txt.
//   NODE_PATH=../../../.ci/npm/node_modules node make.js > messages.txt
const spb = require("sparkplug-payload").get("spBv1.0");
const at = 1763773200000;
const out = (topic, payload) => console.log(topic, Buffer.from(spb.encodePayload(payload)).toString("base64"));
const metric = (name, type, value, more) => Object.assign({ name, type, value, timestamp: at }, more);
out("spBv1.0/hue/NBIRTH/kim-long", { timestamp: at, seq: 0, metrics: [
  metric("bdSeq", "UInt64", 7), metric("Node Control/Rebirth", "Boolean", false),
  metric("river/level_m", "Double", 3.62, { alias: 1 }), metric("river/flow_m3s", "Float", 120.5, { alias: 2 }),
  metric("rssi_dbm", "Int32", -71, { alias: 3 }), metric("Properties/Hardware Make", "String", "Hải Đăng", { alias: 4 }),
] });
out("spBv1.0/hue/DBIRTH/kim-long/pump 1", { timestamp: at, seq: 1, metrics: [
  metric("pump/running", "Boolean", true, { alias: 10 }), metric("pump/starts", "UInt64", 123456789, { alias: 11 }),
  metric("pump/temperature_c", "Int8", -5, { alias: 12 }), metric("pump/at", "DateTime", at, { alias: 13 }),
  metric("pump/raw", "Bytes", new Uint8Array([1, 2]), { alias: 14 }),
] });
out("spBv1.0/hue/NDATA/kim-long", { timestamp: at + 1000, seq: 2, metrics: [
  { alias: 1, type: "Double", value: 3.7, timestamp: at + 1000 }, { alias: 3, type: "Int32", value: -70, timestamp: at + 1000 },
] });
out("spBv1.0/hue/DDATA/kim-long/pump 1", { timestamp: at + 2000, seq: 3, metrics: [
  { alias: 12, type: "Int8", value: -6, timestamp: at + 2000 }, { alias: 10, type: "Boolean", value: null, isNull: true, timestamp: at + 2000 },
  { alias: 11, type: "UInt64", value: 5, timestamp: at - 60000, isHistorical: true },
] });
out("spBv1.0/hue/DDEATH/kim-long/pump 1", { timestamp: at + 3000, seq: 4, metrics: [] });
out("spBv1.0/hue/NDEATH/kim-long", { timestamp: at, metrics: [{ name: "bdSeq", type: "UInt64", value: 7 }] });
