import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bindErrorOf, HostList, isLoopback } from '../../../src/host/http/address.ts'

test('Loopback is localhost, 127/8 and ::1, in any spelling', () => {
  for (const host of ['localhost', 'LocalHost', '127.0.0.1', '127.9.9.9', '::1', '[::1]', '::ffff:127.0.0.1']) {
    assert.ok(isLoopback(host), host)
  }
  for (const host of [
    '0.0.0.0',
    '::',
    '10.0.0.1',
    '127.0.0.1.evil.example',
    'localhost.evil.example',
    '128.0.0.1',
    '',
    '::ffff:10.0.0.1',
  ]) {
    assert.ok(!isLoopback(host), host)
  }
})

test('A bound wildcard allows the addresses of this machine and no names', () => {
  const hosts = new HostList([])
  assert.ok(!hosts.allows('192.0.2.9'))
  hosts.addBound('0.0.0.0')
  assert.ok(hosts.allows('127.0.0.1:7070'))
  assert.ok(!hosts.allows('evil.example:7070'))
  hosts.addBound('192.0.2.9')
  assert.ok(hosts.allows('192.0.2.9:1'))
  assert.ok(new HostList(['KV.Example']).allows('kv.EXAMPLE:80'))
  assert.ok(!hosts.allows(undefined))
  assert.ok(!hosts.allows(''))
})

test('Only an address in brackets has a zone: a name with a percent sign is not the name before it', () => {
  const hosts = new HostList([])
  assert.ok(hosts.allows('[::1%eth0]:7070'))
  for (const host of ['localhost%', 'localhost%.evil.example', '127.0.0.1%eth0:7070']) {
    assert.ok(!hosts.allows(host), host)
  }
})

test('A failed bind names the address', () => {
  const error = (code: string) => Object.assign(new Error(code), { code })
  const used = bindErrorOf('127.0.0.1', 7070, error('EADDRINUSE'))
  assert.equal(used.code, 'ADDRESS_IN_USE')
  assert.match(used.message, /127\.0\.0\.1:7070/)
  const denied = bindErrorOf('127.0.0.1', 80, error('EACCES'))
  assert.equal(denied.code, 'BAD_CONFIG')
  assert.match(denied.message, /EACCES/)
})
