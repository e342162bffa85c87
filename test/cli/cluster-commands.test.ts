import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { runCommandLine } from '../../src/cli/program.ts'
import { FakeTerminal } from './fake-terminal.ts'

const member = {
  nodeId: '00000000000000aa',
  address: '127.0.0.1:7071',
  zone: '',
  state: 'normal',
  isAlive: true,
  isVoter: true,
  partitions: 1024,
}
const documents: Readonly<Record<string, unknown>> = {
  '/v1/cluster': { clusterId: '00000000000000cc', epoch: 7, isAtRest: true, members: [member] },
  '/v1/nodes': { epoch: 7, nodes: [member, { ...member, nodeId: '00000000000000bb', isAlive: false, isVoter: false }] },
  '/v1/ring': {
    epoch: 7,
    partitions: [0, 1, 2].map((partition) => ({
      partition,
      stage: 'stable',
      replicas: partition === 2 ? ['bb'] : ['aa', 'bb'],
    })),
  },
  '/v1/explain/default/a%2Fb': { slot: 1 },
  '/v1/explain/default/a/b': { slot: 1 },
  '/v1/cluster/leave': { epoch: 8 },
  '/v1/cluster/remove': { epoch: 9 },
}

test('cluster shows what the node says of its cluster, and asks for changes', async () => {
  const bodies: string[] = []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (part: Buffer) => {
      body += part.toString()
    })
    request.on('end', () => {
      if (request.method === 'POST') bodies.push(`${request.url} ${body}`)
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify(documents[request.url!.split('?')[0]!] ?? {}))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const run = async (...words: string[]): Promise<string> => {
    const terminal = new FakeTerminal()
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const machinery = { startServer: () => assert.fail('No server is started') }
    const code = await runCommandLine(['cluster', ...words, '--endpoint', endpoint], terminal, machinery)
    assert.equal(code, 0, terminal.errorText)
    return terminal.output
  }
  try {
    const status = await run('status')
    assert.match(status, /^cluster 00000000000000cc {2}epoch 7 {2}at rest\nnode /)
    assert.match(status, /00000000000000aa {2}127\.0\.0\.1:7071 {2}- +normal {2}up {2}yes {4}1024/)
    assert.match(await run('members'), /00000000000000bb .* down {2}no/)
    assert.match(await run('ring'), /0-1 +stable {2}aa bb\n2 +stable {2}bb\n/)
    assert.deepEqual(JSON.parse(await run('status', '-o', 'json')), documents['/v1/cluster'])
    assert.deepEqual(JSON.parse(await run('explain', 'a/b')), { slot: 1 })
    assert.match(await run('leave', member.nodeId), /epoch 8/)
    assert.match(await run('remove', member.nodeId, '--force'), /epoch 9/)
    assert.deepEqual(bodies, [
      `/v1/cluster/leave {"nodeId":"${member.nodeId}"}`,
      `/v1/cluster/remove {"nodeId":"${member.nodeId}","force":true}`,
    ])
  } finally {
    server.closeAllConnections()
    server.close()
  }
})
