/**
 * The files of deploy/ say nothing that the program does not know: every variable, flag, port, route, path and version in them is checked
 * against the code, and sizes and times against each other. What needs Docker or Kubernetes to be seen is not seen here.
 */
import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { ErrorTable } from '../src/base/errors.ts'
import { parseBytes, parseDurationMs } from '../src/cli/quantity.ts'
import { CONFIG_VARIABLE, resolveSettings, type SettingName, SettingTable } from '../src/cli/settings.ts'
import { isLoopback } from '../src/host/http/address.ts'
import { routes } from '../src/host/http/route-table.ts'
import { isMapping, readPlainYaml, type Yaml, type YamlMapping } from './plain-yaml.ts'

const root = join(import.meta.dirname, '..')
const textOf = (...path: string[]): string => readFileSync(join(root, ...path), 'utf8')
const manifest = JSON.parse(textOf('package.json')) as {
  readonly version: string
  readonly bin: { readonly sunwise: string }
  readonly devDependencies: Readonly<Record<string, string>>
}
const dockerfile = textOf('deploy', 'Dockerfile')
const unit = textOf('deploy', 'systemd', 'sunwise.service')
const [composition] = readPlainYaml(textOf('deploy', 'compose.yaml'))
const objects = readPlainYaml(textOf('deploy', 'kubernetes', 'sunwise.yaml'))
const [founder] = readPlainYaml(textOf('deploy', 'kubernetes', 'founder.yaml'))

const httpPort = SettingTable.http.fallback!.split(':')[1]!
/** `--peer` without a port. */
const peerPort = String(SettingTable.peer.parse('0.0.0.0')!.port)
const image = `sunwise:${manifest.version}`
const routePaths: readonly string[] = routes.map(({ path }) => path)

/** What stands at a path of keys and indices; undefined where nothing does. */
function at(value: Yaml, ...path: (string | number)[]): Yaml {
  let found = value
  for (const step of path) {
    if (typeof step === 'number') found = Array.isArray(found) ? found[step] : undefined
    else found = isMapping(found) ? found[step] : undefined
  }
  return found
}

function word(value: Yaml, ...path: (string | number)[]): string {
  const found = at(value, ...path)
  assert.ok(typeof found === 'string', `${path.join('.')} is a scalar`)
  return found
}

function list(value: Yaml, ...path: (string | number)[]): readonly Yaml[] {
  const found = at(value, ...path)
  assert.ok(Array.isArray(found), `${path.join('.')} is a list`)
  return found
}

function mapping(value: Yaml, ...path: (string | number)[]): YamlMapping {
  const found = at(value, ...path)
  assert.ok(isMapping(found), `${path.join('.')} is a mapping`)
  return found
}

/** Variables as the program would get them, checked as it would; those of others are left out. */
function settingsOf(environment: Readonly<Record<string, string>>, flags: Readonly<Record<string, string>> = {}) {
  return resolveSettings({ flags, environment }).values
}

/** What a container or a service may take at least, for a budget. */
const residentBytesOf = (memoryBytes: number): number => 1.1 * memoryBytes + 220e6

/** Follows the rule of memory, and does not waste more than half as much again. */
function assertFits(limit: string, memoryBytes: number): void {
  const bytes = parseBytes(limit.replace(/i$/, ''))
  assert.ok(bytes !== undefined, `${limit} is a size`)
  const least = residentBytesOf(memoryBytes)
  assert.ok(bytes >= least && bytes <= 1.5 * least, `${limit} for a budget of ${memoryBytes} bytes`)
}

/** What closing takes after a drain, at most. */
const closeMs = 15_000

function assertStops(grace: string, drainMs: number, pauseMs = 0): void {
  const graceMs = parseDurationMs(/^\d+$/.test(grace) ? `${grace}s` : grace)!
  assert.ok(graceMs >= pauseMs + drainMs + closeMs, `${grace} to stop, of which ${drainMs} ms drain`)
}

/** Lines without comments, with those that go on in the next one joined. */
function instructionsOf(text: string): string[] {
  const lines = text.split('\n').filter((line) => !line.startsWith('#'))
  return lines
    .join('\n')
    .replaceAll(/\\\n\s*/g, '')
    .split('\n')
    .filter((line) => line !== '')
}

/** The value of a directive in the unit; it stands there once. */
function directive(name: string): string {
  const values = instructionsOf(unit).filter((line) => line.startsWith(`${name}=`))
  assert.equal(values.length, 1, `${name}= stands in the unit once`)
  return values[0]!.slice(name.length + 1)
}

function variablesOfFile(text: string): Record<string, string> {
  return Object.fromEntries(
    instructionsOf(text).map((line) => {
      const match = /^([A-Z_]+)=(\S*)$/.exec(line)
      assert.ok(match !== null, `${line} is a variable`)
      return [match[1]!, match[2]!]
    }),
  )
}

test('Deploy: every variable and flag of Sunwise that the files name exists', () => {
  const variables: string[] = [CONFIG_VARIABLE, ...Object.values(SettingTable).map(({ env }) => env)]
  const flags: string[] = Object.values(SettingTable).map(({ flag }) => flag)
  const files = readdirSync(join(root, 'deploy'), { recursive: true, withFileTypes: true }).filter((file) =>
    file.isFile(),
  )
  assert.ok(files.length >= 7)
  let named = 0
  for (const file of files) {
    const text = readFileSync(join(file.parentPath, file.name), 'utf8')
    for (const [variable] of text.matchAll(/SUNWISE_[A-Z_]*/g)) {
      named++
      assert.ok(variables.includes(variable), `${file.name}: ${variable}`)
    }
    for (const [, called] of text.matchAll(/dist\/main\.js start(.*)/g))
      for (const [flag] of called!.matchAll(/(?<![\w-])--[a-z-]+/g))
        assert.ok(flags.includes(flag), `${file.name}: ${flag}`)
  }
  assert.ok(named > 30)
})

test('Deploy: the Dockerfile copies what exists, builds with the tested Node, and runs as a user that is not root', () => {
  const steps = instructionsOf(dockerfile)
  assert.ok(steps.includes(`ARG NODE_VERSION=${manifest.devDependencies['node']}`))
  const bases = steps.filter((step) => step.startsWith('FROM '))
  assert.equal(bases.length, 2)
  for (const base of bases) assert.match(base, /^FROM node:\$\{NODE_VERSION\}-slim( AS build)?$/)
  const admitted = textOf('deploy', 'Dockerfile.dockerignore')
    .split('\n')
    .filter((line) => line.startsWith('!'))
    .map((line) => line.slice(1))
  const copied = new Set<string>()
  for (const step of steps.filter((line) => /^COPY (?!--from)/.test(line))) {
    for (const path of step.split(' ').slice(1, -1)) copied.add(path.replace(/\/$/, ''))
  }
  for (const path of copied) assert.ok(existsSync(join(root, path)), `There is no ${path}`)
  assert.deepEqual([...copied].sort(), admitted.sort(), 'What is copied is what the build may see')
  for (const [, script] of dockerfile.matchAll(/^RUN node (\S+)$/gm))
    assert.ok(copied.has(script!), `${script} is copied`)
  assert.ok(steps.includes('RUN npm ci --omit=dev --ignore-scripts'))

  const last = steps.slice(steps.lastIndexOf(bases[1]!))
  const user = /^USER (\d+):(\d+)$/.exec(last.find((step) => step.startsWith('USER '))!)!
  assert.ok(Number(user[1]) > 0 && Number(user[2]) > 0)
  const [volume] = last.flatMap((step) => /^VOLUME (\S+)$/.exec(step)?.[1] ?? [])
  assert.ok(last.includes(`RUN install -d -o ${user[1]} -g ${user[2]} -m 0700 ${volume}`))
  assert.ok(last.join('\n').includes(`SUNWISE_DATA_DIR=${volume}/`))
  assert.ok(last.includes(`ENTRYPOINT ["node", "${manifest.bin.sunwise}"]`))
  assert.ok(last.includes(`EXPOSE ${httpPort} ${peerPort}/tcp ${peerPort}/udp`))
  const probe = last.find((step) => step.startsWith('HEALTHCHECK '))!
  const asked = /http:\/\/127\.0\.0\.1:(\d+)(\/\w+)/.exec(probe)!
  assert.deepEqual([asked[1], asked[2]], [httpPort, '/readyz'])
  assert.ok(routePaths.includes(asked[2]!))
})

test('Deploy: the health check of the image ends with 0 where a node is ready, and with 1 where none is', async (context) => {
  const command = JSON.parse(
    /^HEALTHCHECK .*CMD (\[.*\])$/m.exec(instructionsOf(dockerfile).join('\n'))![1]!,
  ) as string[]
  assert.deepEqual(command.slice(0, 2), ['node', '-e'])
  let status = 200
  const server = createServer((_, answer) => answer.writeHead(status).end())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  context.after(() => server.close())
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  const ended = (): Promise<number> =>
    new Promise((resolve) => {
      const script = command[2]!.replace(`:${httpPort}`, `:${address.port}`)
      const child = execFile(process.execPath, ['-e', script], { timeout: 60_000 })
      child.on('exit', (code) => resolve(code ?? -1))
    })
  assert.equal(await ended(), 0)
  status = 503
  assert.equal(await ended(), 1)
  await new Promise((resolve) => server.close(resolve))
  assert.equal(await ended(), 1)
})

test('Deploy: compose.yaml runs three nodes that know each other, within their memory', () => {
  const services = Object.entries(mapping(composition, 'services'))
  assert.equal(services.length, 3)
  const addresses = services.map(([name]) => `${name}:${peerPort}`)
  const published = new Set<string>()
  const volumes = new Set<string>()
  let founders = 0
  for (const [name, service] of services) {
    const settings = settingsOf(mapping(service, 'environment') as Record<string, string>)
    assert.equal(settings.advertise, `${name}:${peerPort}`)
    if (settings.join.length === 0) founders++
    else assert.deepEqual(settings.join, addresses)
    assert.deepEqual(
      [settings.http.port, settings.peer?.port, settings.insecure],
      [Number(httpPort), Number(peerPort), true],
    )
    assert.ok(settings.allowedHosts.includes(name))
    assert.equal(word(service, 'image'), image)
    assert.ok(existsSync(join(root, 'deploy', word(service, 'build', 'context'), word(service, 'build', 'dockerfile'))))
    assertFits(word(service, 'mem_limit'), settings.memory)
    assertStops(word(service, 'stop_grace_period'), settings.drainTimeout)
    const [port] = list(service, 'ports')
    const [, host, outside, inside] = /^(.+):(\d+):(\d+)$/.exec(port as string)!
    assert.ok(isLoopback(host!) && inside === httpPort)
    published.add(outside!)
    const [volume, mount] = word(service, 'volumes', 0).split(':')
    assert.ok(dockerfile.includes(`\nVOLUME ${mount}\n`))
    assert.ok(volume! in mapping(composition, 'volumes'))
    volumes.add(volume!)
  }
  assert.equal(founders, 1, 'One begins the cluster')
  assert.deepEqual([published.size, volumes.size], [3, 3])
})

test('Deploy: the unit starts the program with settings that exist, drains before it is killed, and fits its memory', () => {
  const [node, program, command, ...rest] = directive('ExecStart').split(' ')
  assert.deepEqual([node, program, command], ['/usr/bin/node', `/opt/sunwise/${manifest.bin.sunwise}`, 'start'])
  const flags: Record<string, string> = {}
  for (let index = 0; index < rest.length; index += 2) {
    const found = (Object.keys(SettingTable) as SettingName[]).find((name) => SettingTable[name].flag === rest[index])
    assert.ok(found !== undefined, `There is no flag ${rest[index]}`)
    flags[found] = rest[index + 1]!
  }
  const settings = settingsOf(variablesOfFile(textOf('deploy', 'systemd', 'sunwise.env')), flags)
  assert.ok(settings.dataDir?.startsWith(`/var/lib/${directive('StateDirectory')}/`))
  assertStops(directive('TimeoutStopSec'), settings.drainTimeout)
  assertFits(directive('MemoryMax'), settings.memory)
  assert.deepEqual([settings.http.port, settings.peer?.port], [Number(httpPort), Number(peerPort)])
  assert.ok(isLoopback(settings.http.host) && settings.insecure)
  assert.ok(settings.join.includes(`${settings.peer?.host}:${peerPort}`))
  assert.equal(directive('Restart'), 'on-failure')
  assert.equal(directive('RestartPreventExitStatus'), String(ErrorTable.BAD_CONFIG.exit))
  assert.ok(Number(directive('LimitNOFILE')) >= 65_536)
  const families = directive('RestrictAddressFamilies').split(' ')
  for (const family of ['AF_INET', 'AF_INET6', 'AF_UNIX', 'AF_NETLINK']) assert.ok(families.includes(family), family)
  assert.doesNotMatch(instructionsOf(unit).join('\n'), /MemoryDenyWriteExecute/)
  for (const name of ['NoNewPrivileges', 'PrivateTmp', 'ProtectHome', 'RestrictNamespaces', 'DynamicUser'])
    assert.equal(directive(name), 'yes')
})

/** The only object of a kind and name. */
function objectOf(kind: string, name: string): Yaml {
  const found = objects.filter((object) => at(object, 'kind') === kind && at(object, 'metadata', 'name') === name)
  assert.equal(found.length, 1, `There is one ${kind} ${name}`)
  return found[0]
}

/** The variables of a container in one pod, with what Kubernetes puts in. */
function podEnvironment(container: Yaml, pod: string): Record<string, string> {
  const known: Record<string, string> = {}
  const fields: Record<string, string> = {
    'metadata.name': pod,
    'metadata.namespace': 'shop',
    "metadata.labels['topology.kubernetes.io/zone']": 'europe-1a',
  }
  for (const variable of list(container, 'env')) {
    const name = word(variable, 'name')
    assert.ok(!(name in known), `${name} stands once`)
    const field = at(variable, 'valueFrom', 'fieldRef', 'fieldPath')
    if (typeof field === 'string') {
      assert.ok(field in fields, `${field} can be asked for`)
      known[name] = fields[field]!
    } else if (at(variable, 'valueFrom') !== undefined) {
      const reference = mapping(variable, 'valueFrom', 'configMapKeyRef')
      assert.equal(reference['name'], at(founder, 'metadata', 'name'))
      assert.equal(reference['optional'], 'true')
      known[name] = word(founder, 'data', word(reference, 'key'))
    } else {
      known[name] = word(variable, 'value').replaceAll(/\$\(([A-Z_]+)\)/g, (_, earlier: string) => {
        assert.ok(earlier in known, `${earlier} stands above ${name}`)
        return known[earlier]!
      })
    }
  }
  return known
}

const statefulSet = objectOf('StatefulSet', 'sunwise')
const podSpec = mapping(statefulSet, 'spec', 'template', 'spec')
const container = at(podSpec, 'containers', 0)
const replicas = Number(word(statefulSet, 'spec', 'replicas'))
const pods = Array.from({ length: replicas }, (_, ordinal) => `sunwise-${ordinal}`)
const sunwiseOnly = (environment: Record<string, string>): Record<string, string> =>
  Object.fromEntries(Object.entries(environment).filter(([name]) => name.startsWith('SUNWISE_')))

test('Deploy: the pods of Kubernetes have settings that exist, and find each other by the names of the headless service', () => {
  const service = word(statefulSet, 'spec', 'serviceName')
  const headless = objectOf('Service', service)
  assert.equal(word(headless, 'spec', 'clusterIP'), 'None')
  assert.equal(word(headless, 'spec', 'publishNotReadyAddresses'), 'true')
  const addresses = pods.map((pod) => `${pod}.${service}:${peerPort}`)
  for (const [ordinal, pod] of pods.entries()) {
    const settings = settingsOf(sunwiseOnly(podEnvironment(container, pod)))
    assert.equal(settings.advertise, addresses[ordinal])
    assert.deepEqual(settings.join, addresses)
    assert.equal(settings.zone, 'europe-1a')
    assert.ok(settings.allowedHosts.includes('sunwise.shop.svc.cluster.local'))
    assert.deepEqual([settings.http.port, settings.peer?.port], [Number(httpPort), Number(peerPort)])
    const [mount] = list(container, 'volumeMounts')
    assert.equal(at(mount, 'name'), at(statefulSet, 'spec', 'volumeClaimTemplates', 0, 'metadata', 'name'))
    assert.ok(settings.dataDir?.startsWith(`${word(mount, 'mountPath')}/`))
    const { limits, requests } = mapping(container, 'resources')
    assertFits(word(limits, 'memory'), settings.memory)
    assert.equal(at(requests, 'memory'), at(limits, 'memory'))
    const [program, seconds] = list(container, 'lifecycle', 'preStop', 'exec', 'command')
    assert.equal(program, 'sleep')
    assertStops(word(podSpec, 'terminationGracePeriodSeconds'), settings.drainTimeout, Number(seconds) * 1000)
  }
  assert.equal(word(container, 'image'), image)
})

test('Deploy: ports, probes, selectors and users in Kubernetes agree', () => {
  const ports = list(container, 'ports').map((port) =>
    ['name', 'containerPort', 'protocol'].map((key) => word(port, key)),
  )
  assert.deepEqual(ports, [
    ['http', httpPort, 'TCP'],
    ['peer', peerPort, 'TCP'],
    ['peer-udp', peerPort, 'UDP'],
  ])
  const probes = { startupProbe: '/healthz', livenessProbe: '/healthz', readinessProbe: '/readyz' }
  for (const [probe, path] of Object.entries(probes)) {
    assert.equal(word(container, probe, 'httpGet', 'path'), path)
    assert.ok(routePaths.includes(path))
    assert.equal(word(container, probe, 'httpGet', 'port'), 'http')
  }
  const labels = mapping(statefulSet, 'spec', 'template', 'metadata', 'labels')
  const affinity = at(podSpec, 'affinity', 'podAntiAffinity', 'requiredDuringSchedulingIgnoredDuringExecution', 0)
  for (const selector of [
    at(statefulSet, 'spec', 'selector', 'matchLabels'),
    at(objectOf('Service', 'sunwise'), 'spec', 'selector'),
    at(objectOf('Service', 'sunwise-peers'), 'spec', 'selector'),
    at(objectOf('PodDisruptionBudget', 'sunwise'), 'spec', 'selector', 'matchLabels'),
    at(objectOf('NetworkPolicy', 'sunwise'), 'spec', 'podSelector', 'matchLabels'),
    at(objectOf('NetworkPolicy', 'sunwise'), 'spec', 'ingress', 0, 'from', 0, 'podSelector', 'matchLabels'),
    at(affinity, 'labelSelector', 'matchLabels'),
    at(podSpec, 'topologySpreadConstraints', 0, 'labelSelector', 'matchLabels'),
  ])
    assert.deepEqual(selector, labels)
  assert.equal(word(affinity, 'topologyKey'), 'kubernetes.io/hostname')
  assert.equal(word(objectOf('PodDisruptionBudget', 'sunwise'), 'spec', 'maxUnavailable'), '1')
  const [peers, clients] = list(objectOf('NetworkPolicy', 'sunwise'), 'spec', 'ingress')
  assert.deepEqual(
    [peers, clients].map((rule) => list(rule, 'ports').map((port) => word(port, 'port'))),
    [[peerPort, peerPort], [httpPort]],
  )
  assert.equal(word(podSpec, 'securityContext', 'runAsNonRoot'), 'true')
  assert.ok(dockerfile.includes(`\nUSER ${word(podSpec, 'securityContext', 'runAsUser')}:`))
})

test('Deploy: only the founder begins a cluster, and only while it is named', () => {
  const [shell, option, script] = list(container, 'command')
  assert.deepEqual([shell, option], ['sh', '-c'])
  assert.ok((script as string).includes(`exec node ${manifest.bin.sunwise} start`))
  const folder = mkdtempSync(join(tmpdir(), 'sunwise-deploy-'))
  try {
    // Stands in for node, and says what it got.
    writeFileSync(join(folder, 'node'), '#!/bin/sh\necho "$* join=$SUNWISE_JOIN"\n')
    chmodSync(join(folder, 'node'), 0o755)
    const said = (pod: string, named: boolean): string => {
      const { FOUNDER = '', ...others } = podEnvironment(container, pod)
      const env = { ...others, ...(named ? { FOUNDER } : {}), PATH: `${folder}:${process.env['PATH']}` }
      const { stdout, stderr } = spawnSync('sh', ['-c', script as string], { env, encoding: 'utf8' })
      assert.equal(stderr, '')
      return stdout
    }
    const joins = `dist/main.js start join=${podEnvironment(container, 'sunwise-0')['SUNWISE_JOIN']}\n`
    assert.equal(said('sunwise-0', true), 'dist/main.js start join=\n')
    assert.equal(said('sunwise-1', true), joins)
    assert.equal(said('sunwise-0', false), joins)
    assert.equal(said('sunwise-1', false), joins)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('readPlainYaml() reads what it says, and refuses what it does not know or others read otherwise', () => {
  const text = [
    '# note',
    'a: &a',
    '  b: 1',
    '  c: "x: y"',
    'd:',
    '  <<: *a',
    '  b: 2',
    'e:',
    '  - f: g',
    '    h:',
    '      - i',
    'j: {}',
    'k:',
    '---',
    '- -c',
  ]
  assert.deepEqual(readPlainYaml(text.join('\n')), [
    {
      a: { b: '1', c: 'x: y' },
      d: { b: '2', c: 'x: y' },
      e: [{ f: 'g', h: ['i'] }],
      j: {},
      k: undefined,
    },
    ['-c'],
  ])
  const refused = [
    'a: 1\na: 2',
    'a: [b]',
    'a: {b: c}',
    'a: |\n  b',
    'a: >\n  b',
    'a: *b',
    'a: !b c',
    'a: b # c',
    'a: b: c',
    'a:\n   b: c',
    'a: b\n  c: d',
    'a:\n  - b\n  c: d',
    'a:\tb',
    'a: b ',
    'a: "b',
    'a',
    '<<: *b',
  ]
  for (const bad of refused) assert.throws(() => readPlainYaml(bad), /Line \d/, bad)
})
