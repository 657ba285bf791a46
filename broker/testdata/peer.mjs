// npm's mqtt against the broker: node peer.mjs URL CA USER SECRET READER SECRET
// ADMINISTRATOR PASSWORD. Prints "well", or what is wrong.
import { createRequire } from 'node:module'
import fs from 'node:fs'
const require = createRequire(process.env.HAIDANG_NPM + '/')
const mqtt = require('mqtt')
const [url, ca, user, secret, reader, readerSecret, admin, password] = process.argv.slice(2)
const fail = (what) => { console.log(what); process.exit(1) }
setTimeout(() => fail('not in time'), 15000).unref()
const options = (version, username, password, more = {}) => ({
  protocolVersion: version, username, password, reconnectPeriod: 0, ...(ca ? { ca: fs.readFileSync(ca) } : {}), ...more,
})
const until = async (what, ok) => {
  for (let i = 0; !ok(); i++) {
    if (i === 1000) fail(`${url}: ${what}`)
    await new Promise((r) => setTimeout(r, 10))
  }
}
// What there is besides telemetry: a will, a retained message, a session that goes
// on and one that ends, a group.
async function more(version) {
  const heard = {}
  const peer = async (clientId, extra = {}) => {
    const c = mqtt.connect(url, options(version, admin, password, { clientId: `${clientId}-${version}`, ...extra }))
    heard[clientId] = []
    c.on('message', (topic, payload, packet) => heard[clientId].push(`${topic} ${payload}${packet.retain ? ' retained' : ''}`))
    const connack = await new Promise((resolve, reject) => { c.once('connect', resolve); c.once('error', reject) })
    return Object.assign(c, { present: connack.sessionPresent })
  }
  const wants = (who, ...want) => until(`version ${version}, ${who} hears ${heard[who]}, want ${want}`, () => heard[who].join() === want.join())
  const listener = await peer('listener')
  await listener.subscribeAsync([`telemetry/${user}/will`], { qos: 1 })
  const dying = mqtt.connect(url, options(version, user, secret, { will: { topic: `telemetry/${user}/will`, payload: '{"gone":1}', qos: 1 } }))
  await new Promise((r) => dying.once('connect', r))
  dying.stream.destroy()
  await wants('listener', `telemetry/${user}/will {"gone":1}`)
  await listener.publishAsync('chat/kept', 'kept', { qos: 1, retain: true })
  const late = await peer('late')
  await late.subscribeAsync('chat/kept', { qos: 1 })
  await wants('late', 'chat/kept kept retained')
  await listener.publishAsync('chat/kept', '', { qos: 1, retain: true })
  await wants('late', 'chat/kept kept retained', 'chat/kept ')
  const lasting = (expiry) => ({ clean: false, ...(version === 5 ? { properties: { sessionExpiryInterval: expiry } } : {}) })
  const away = await peer('away', lasting(100))
  if (away.present) fail('a session before the first connection')
  await away.subscribeAsync('chat/away', { qos: 1 })
  await away.endAsync()
  for (let i = 0; i < 3; i++) await listener.publishAsync('chat/away', String(i), { qos: 1 })
  const back = await peer('away', lasting(0))
  if (!back.present) fail('the session is gone')
  await wants('away', 'chat/away 0', 'chat/away 1', 'chat/away 2')
  await back.endAsync()
  const again = await peer('away', lasting(0))
  if (again.present !== (version !== 5)) fail(`version ${version}: session present ${again.present} after it was to end`)
  const members = [await peer('one'), await peer('two')]
  for (const m of members) await m.subscribeAsync('$share/group/chat/shared', { qos: 1 })
  for (let i = 0; i < 10; i++) await listener.publishAsync('chat/shared', String(i), { qos: 1 })
  await until('the group hears ten', () => heard.one.length + heard.two.length === 10)
  if (!heard.one.length || !heard.two.length) fail(`one of the group hears all: ${heard.one.length}`)
  await Promise.all([listener, late, again, ...members].map((c) => c.endAsync()))
}
for (const version of [4, 5]) {
  await more(version)
  const heard = []
  const listener = await mqtt.connectAsync(url, options(version, reader, readerSecret))
  listener.on('message', (topic, payload) => heard.push(`${topic} ${payload}`))
  await listener.subscribeAsync('telemetry/#', { qos: 2 })
  const device = await mqtt.connectAsync(url, options(version, user, secret, version === 5 ? { properties: { topicAliasMaximum: 10 }, autoAssignTopicAlias: true } : {}))
  const want = []
  for (const qos of [0, 1, 2, 1, 2]) {
    const payload = JSON.stringify({ a: 10 * version + want.length })
    want.push(`telemetry/${user}/k ${payload}`)
    await device.publishAsync(`telemetry/${user}/k`, payload, { qos })
  }
  for (let i = 0; heard.length < want.length && i < 500; i++) await new Promise((r) => setTimeout(r, 10))
  if (heard.sort().join() !== want.sort().join()) fail(`version ${version}: heard ${heard}, want ${want}`)
  if (version === 5) {
    const why = await device.publishAsync('telemetry/other/k', '{"a":1}', { qos: 1 }).then(() => 'taken', (e) => e.code)
    if (why !== 0x87) fail(`a publish as another device: ${why}`)
    const granted = await listener.subscribeAsync('commands/#').then((g) => g[0]?.qos, (e) => String(e))
    if (!String(granted).includes('Not authorized')) fail(`a subscription to commands: ${granted}`)
    const shared = await listener.subscribeAsync('$share/group/telemetry/+/k', { qos: 1 })
    if (shared[0].qos !== 1) fail(`a shared subscription: ${JSON.stringify(shared)}`)
  }
  await Promise.all([listener.endAsync(), device.endAsync()])
  const refused = await mqtt.connectAsync(url, options(version, user, 'wrong')).then(() => 'let in', (e) => e.code)
  if (refused !== (version === 5 ? 0x86 : 4)) fail(`version ${version} with a wrong secret: ${refused}`)
}
console.log('well')
