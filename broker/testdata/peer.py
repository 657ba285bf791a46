# paho for Python against the broker: python3 peer.py URL CA USER SECRET ADMINISTRATOR
# PASSWORD. Prints "well", or what is wrong.
import json, ssl, sys, threading, time
from urllib.parse import urlparse
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

url, ca, user, secret, admin, password = sys.argv[1:]
at = urlparse(url)
PATIENCE = 10


def fail(what):
    print(what)
    sys.stdout.flush()
    import os
    os._exit(1)


class Peer:
    """A client that notes what it hears."""

    def __init__(self, version, name, word, client, keep=False, will=None, expiry=100):
        self.version, self.heard, self.changed = version, [], threading.Condition()
        self.granted, self.present, self.code, self.acked = [], None, None, set()
        options = {'client_id': client, 'protocol': version, 'transport': 'websockets' if at.scheme == 'wss' else 'tcp'}
        if version != mqtt.MQTTv5:
            options['clean_session'] = not keep
        self.c = c = mqtt.Client(**options)
        c.username_pw_set(name, word)
        if at.scheme != 'mqtt':
            c.tls_set(ca_certs=ca, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        if will:
            c.will_set(*will)
        c.on_message = lambda _c, _u, m: self.note(lambda: self.heard.append((m.topic, m.payload.decode(), m.retain)))
        c.on_connect = lambda _c, _u, flags, rc, *more: self.note(lambda: self.connected(flags, rc))
        c.on_subscribe = lambda _c, _u, mid, granted, *more: self.note(lambda: self.granted.append([getattr(g, 'value', g) for g in granted]))
        c.on_publish = lambda _c, _u, mid: self.note(lambda: self.acked.add(mid))
        more = {}
        if version == mqtt.MQTTv5:
            more['clean_start'] = not keep
            more['properties'] = Properties(PacketTypes.CONNECT)
            more['properties'].SessionExpiryInterval = expiry if keep else 0
        c.connect(at.hostname, at.port, keepalive=60, **more)
        c.loop_start()
        self.wait(lambda: self.code is not None, 'no CONNACK')

    def connected(self, flags, rc):
        self.present, self.code = flags['session present'], getattr(rc, 'value', rc)

    def note(self, act):
        with self.changed:
            act()
            self.changed.notify_all()

    def wait(self, ok, what):
        with self.changed:
            if not self.changed.wait_for(ok, PATIENCE):
                fail(f'{at.scheme} version {self.version}: {what}: heard {self.heard}')

    def subscribe(self, *filters):
        self.granted.clear()
        self.c.subscribe(list(filters))
        self.wait(lambda: self.granted, f'no SUBACK for {filters}')
        return self.granted[0]

    def publish(self, topic, payload, qos=1, retain=False, properties=None):
        info = self.c.publish(topic, payload, qos, retain, properties)
        self.wait(lambda: info.mid in self.acked, f'{topic} is not acknowledged')

    def wants(self, *want):
        self.wait(lambda: len(self.heard) >= len(want), f'want {want}')
        if self.heard != list(want):
            fail(f'{at.scheme} version {self.version}: heard {self.heard}, want {want}')
        self.heard.clear()

    def leave(self):
        self.c.disconnect()
        self.c.loop_stop()


for version in (mqtt.MQTTv311, mqtt.MQTTv5):
    def peer(client, name=admin, word=password, **more):
        return Peer(version, name, word, f'{client}-{version}', **more)

    # Telemetry of each QoS.
    listener = peer('listener')
    listener.subscribe((f'telemetry/{user}/#', 2), ('chat/#', 1))
    device = peer('device', user, secret)
    topic = f'telemetry/{user}/k'
    for qos in (0, 1, 2):
        payload = json.dumps({'a': 10 * version + qos})
        device.publish(topic, payload, qos)
        listener.wants((topic, payload, False))
    if version == mqtt.MQTTv5:  # a topic alias
        alias = Properties(PacketTypes.PUBLISH)
        alias.TopicAlias = 1
        device.publish(topic, '{"a":1}', properties=alias)
        alias = Properties(PacketTypes.PUBLISH)
        alias.TopicAlias = 1
        device.publish(topic, '{"a":2}', properties=alias)
        listener.wants((topic, '{"a":1}', False), (topic, '{"a":2}', False))
    # A will.
    dying = peer('dying', user, secret, will=(topic, '{"gone":1}', 1, False))
    dying.c.loop_stop()
    dying.c.socket().close()
    listener.wants((topic, '{"gone":1}', False))
    # A retained message, for who comes later.
    listener.publish('chat/kept', 'kept', retain=True)
    listener.wants(('chat/kept', 'kept', False))
    late = peer('late')
    late.subscribe(('chat/kept', 1))
    late.wants(('chat/kept', 'kept', True))
    listener.publish('chat/kept', '', retain=True)
    late.wants(('chat/kept', '', False))
    listener.wants(('chat/kept', '', False))
    # A session that goes on.
    away = peer('away', keep=True)
    if away.present:
        fail('a session before the first connection')
    away.subscribe(('chat/away', 1))
    away.leave()
    for i in range(3):
        listener.publish('chat/away', str(i))
    back = peer('away', keep=True, expiry=0)  # MQTT 5: it ends with this connection
    if not back.present:
        fail('the session is gone')
    back.wants(*(('chat/away', str(i), False) for i in range(3)))
    back.leave()
    again = peer('away', keep=True)
    if bool(again.present) != (version != mqtt.MQTTv5):
        fail(f'version {version}: session present {again.present} after it was to end')
    again.leave()
    # A shared subscription.
    if version == mqtt.MQTTv5:
        members = [peer(f'member-{i}') for i in range(2)]
        for m in members:
            m.subscribe(('$share/group/chat/shared', 1))
        for i in range(10):
            listener.publish('chat/shared', str(i))
        end = time.time() + PATIENCE
        while sum(len(m.heard) for m in members) < 10 and time.time() < end:
            time.sleep(0.01)
        if sorted(int(p) for m in members for _, p, _ in m.heard) != list(range(10)) or not all(m.heard for m in members):
            fail(f'the members of a group hear {[m.heard for m in members]}')
        for m in members:
            m.leave()
    # What is refused.
    granted = device.subscribe(('telemetry/#', 1))
    if granted != [0x87 if version == mqtt.MQTTv5 else 0x80]:
        fail(f'version {version}: a station may read telemetry: {granted}')
    wrong = peer('wrong', user, 'wrong')
    if wrong.code != (0x86 if version == mqtt.MQTTv5 else 4):
        fail(f'version {version} with a wrong secret: {wrong.code}')
    for c in (listener, device, late):
        c.leave()
print('well')
