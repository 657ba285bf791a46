// npm's mqtt against the broker: node peer.mjs URL CA USER SECRET OTHER_USER
// OTHER_SECRET. Prints "well", or what is wrong.
import { createRequire } from 'node:module'
import fs from 'node:fs'
const require = createRequire(process.env.HAIDANG_NPM + '/')
const mqtt = require('mqtt')
const [url, ca, user, secret, reader, readerSecret] = process.argv.slice(2)
const fail = (what) => { console.log(what); process.exit(1) }
setTimeout(() => fail('not in time'), 15000).unref()
const options = (version, username, password, more = {}) => ({
  protocolVersion: version, username, password, reconnectPeriod: 0, ...(ca ? { ca: fs.readFileSync(ca) } : {}), ...more,
})
for (const version of [4, 5]) {
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
