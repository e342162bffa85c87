import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { decodePeerPorts, encodePeerPorts, freePort, readPeerPorts, writePeerPorts } from '../../src/cli/dev-ports.ts'

test('dev.json has the form that its header draws', () => {
  const text = '{"version":1,"peerPorts":[40117,null,40121]}\n'
  // biome-ignore lint/suspicious/noSparseArray: a node that became ready before the one ahead of it leaves a hole
  assert.equal(encodePeerPorts([40117, , 40121]), text)
  assert.deepEqual(decodePeerPorts(text), [40117, undefined, 40121])
})

test('dev.json that cannot be read knows no port', () => {
  for (const text of [
    '',
    '{',
    'null',
    '7',
    '[]',
    '{}',
    '{"version":2,"peerPorts":[1]}',
    '{"version":1,"peerPorts":{}}',
  ])
    assert.deepEqual(decodePeerPorts(text), [], text)
  assert.deepEqual(decodePeerPorts('{"version":1,"peerPorts":[0,-1,65536,1.5,"7",{},65535]}'), [
    ...Array(6).fill(undefined),
    65_535,
  ])
})

test('Ports are kept in the directory, and there are none before', () => {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-dev-ports-'))
  try {
    assert.deepEqual(readPeerPorts(directory), [])
    writePeerPorts(directory, [40117])
    writePeerPorts(directory, [40117, 40121])
    assert.deepEqual(readPeerPorts(directory), [40117, 40121])
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('freePort() gives the wanted port only where nobody listens on it', async () => {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  assert.equal(await freePort(port), undefined)
  const other = await freePort()
  assert.ok(other! > 0 && other !== port)
  await new Promise((resolve) => server.close(resolve))
  assert.equal(await freePort(port), port)
})
