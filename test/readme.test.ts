/**
 * README.md and src/ARCHITECTURE.md say what is so: their links lead somewhere, their commands, flags, names and tables are
 * those of the code, the example runs, and the terminals show what they show here. `node scripts/readme.ts` writes what can be
 * written.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  codesNotGivenYet,
  commandFlags,
  commandNames,
  drawnSections,
  masked,
  readReadme,
  recordSession,
  sectionOf,
  sessionSteps,
  tableRows,
} from '../scripts/readme.ts'
import { readScale, scaleChart } from '../scripts/scale.ts'
import { ErrorTable } from '../src/base/errors.ts'
import { CONFIG_VARIABLE, resolveSettings, SettingTable } from '../src/cli/settings.ts'
import { Client } from '../src/client/connect.ts'
import { ConfigDefaults, Limits } from '../src/config.ts'
import { routes } from '../src/host/http/route-table.ts'
import { BucketStore, Store } from '../src/index.ts'
import { ServerProcess } from './process/server-process.ts'

const root = join(import.meta.dirname, '..')
const readme = readReadme()
const architecture = readFileSync(join(root, 'src', 'ARCHITECTURE.md'), 'utf8')
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>
  engines: { node: string }
  devDependencies: Record<string, string>
  license: string
}

/** The text of the first block of a language. */
function blockOf(document: string, language: string): string {
  const match = new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)\\n\`\`\`$`, 'm').exec(document)
  assert.ok(match !== null, `There is a ${language} block`)
  return match[1]!
}

/** The name under which GitHub links to a heading. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')

function brokenLinks(document: string, folder: string): string[] {
  const anchors = [...document.matchAll(/^#+ (.*)$/gm)].map((match) => `#${anchorOf(match[1]!)}`)
  const targets = [...document.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1]!)
  return targets.filter((target) => {
    if (/^https?:/.test(target)) return false
    return target.startsWith('#') ? !anchors.includes(target) : !existsSync(join(folder, target.split('#')[0]!))
  })
}

test('Every link of the README and of ARCHITECTURE.md leads to a file or a heading', () => {
  assert.deepEqual(brokenLinks(readme, root), [])
  assert.deepEqual(brokenLinks(architecture, join(root, 'src')), [])
  assert.deepEqual(brokenLinks('# One\n[a](#one) [b](#two) [c](README.md) [d](absent.md)', root), ['#two', 'absent.md'])
})

test('Every test that a guarantee quotes exists in the file that is linked', () => {
  const rows = tableRows(readme.slice(readme.indexOf('\n## Guarantees\n')).split('\n\n')[2] ?? '')
  assert.ok(rows.length > 10)
  for (const [promise, proof] of rows) {
    const links = [...proof!.matchAll(/\]\((test\/[^)]+)\)/g)].map((match) => match[1]!)
    assert.ok(links.length > 0, `"${promise}" has a proof`)
    const text = links.map((link) => readFileSync(join(root, link), 'utf8')).join('\n')
    for (const [, title] of proof!.matchAll(/"([^"]+)"/g)) {
      assert.ok(text.includes(title!), `No test of ${links.join(', ')} is named "${title}"`)
    }
  }
})

test('The tables of errors, limits, settings, commands and routes are those of the code', async () => {
  for (const [name, text] of Object.entries(await drawnSections())) {
    assert.equal(sectionOf(readme, name), text, `Section ${name}; node scripts/readme.ts writes it again`)
  }
})

test('The chart of the ring at several sizes is the one of its figures', () => {
  assert.equal(readFileSync(join(root, 'evidence', 'scale.svg'), 'utf8'), scaleChart(readScale(root)))
})

test('The table of limits shows the values of the configuration', () => {
  const rows = new Map(
    tableRows(sectionOf(readme, 'limits')).map(([name, value]) => [name!.replaceAll('`', ''), value!]),
  )
  const unit: Record<string, number> = {
    B: 1,
    KiB: 1024,
    MiB: 1024 ** 2,
    GiB: 1024 ** 3,
    ms: 1,
    s: 1e3,
    min: 6e4,
    d: 864e5,
  }
  for (const [name, value] of rows) {
    assert.ok(Object.hasOwn(Limits, name), `${name} is no limit`)
    const [amount, word] = value.split(' ')
    const scale = word === undefined ? 1 : unit[word]
    const [part, whole = '1'] = amount!.split('/')
    assert.equal((Number(part) / Number(whole)) * scale!, Limits[name as keyof typeof Limits], name)
  }
  assert.ok(rows.size > 20)
})

test('The walk in the terminal prints what the README shows', async (context) => {
  for (const tool of ['bash', 'curl', 'od']) {
    if (spawnSync(tool, ['--version']).error === undefined) continue
    return context.skip(`There is no ${tool} here`)
  }
  const documented = sessionSteps(readme)
  assert.ok(documented.length > 15)
  const { readyLine, steps } = await recordSession(documented.map(({ command }) => command))
  for (const [index, { command, output }] of steps.entries()) {
    assert.equal(masked(output), masked(documented[index]!.output), `$ ${command}`)
  }
  const start = blockOf(sectionOf(readme, 'start'), 'console').split('\n')
  assert.equal(start[0], '$ npm ci && npm start')
  assert.equal(masked(start[1]!), masked(readyLine))
})

test('The masks of the walk hide what differs from run to run, and nothing else', () => {
  const answer = 'ETag: "709c4d337afac087"\nSunwise-Context: AdgDAQBnN7lMrZZO\nContent-Length: 243\nSunwise-Siblings: 2'
  assert.equal(masked(answer), 'ETag: ETAG\nSunwise-Context: CONTEXT\nContent-Length: BYTES\nSunwise-Siblings: 2')
  assert.equal(masked('{"expires":1795394827620,"value":"Ada"}'), '{"expires":TIME,"value":"Ada"}')
  assert.notEqual(masked('HTTP/1.1 204 No Content'), masked('HTTP/1.1 200 OK'))
  assert.notEqual(masked('{"code":"NOT_FOUND"}'), masked('{"code":"CONFLICT"}'))
})

/** Type-checks and runs an example in a directory of its own, and gives what it prints. */
function runExample(example: string, name: string, entry: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-example-'))
  try {
    assert.ok(example.includes(`from '${name}'`))
    const file = join(directory, 'example.ts')
    writeFileSync(join(directory, 'package.json'), '{"type":"module"}')
    writeFileSync(file, example.replace(`'${name}'`, JSON.stringify(join(root, 'src', entry))))
    const flags = [
      '--ignoreConfig',
      '--noEmit',
      '--strict',
      '--target',
      'esnext',
      '--module',
      'nodenext',
      '--skipLibCheck',
      '--allowImportingTsExtensions',
    ]
    const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules', '@types')]
    const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
    const checked = spawnSync(process.execPath, [compiler, ...flags, ...types, file], { encoding: 'utf8' })
    assert.equal(checked.stdout, '')
    const { stdout, stderr, status } = spawnSync(process.execPath, [file], {
      cwd: directory,
      encoding: 'utf8',
      timeout: 240_000,
    })
    assert.deepEqual([status, stderr], [0, ''])
    return stdout.trimEnd()
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

const librarySection = readme.slice(readme.indexOf('\n## As a library\n'), readme.indexOf('\n## Client\n'))
const clientSection = readme.slice(readme.indexOf('\n## Client\n'), readme.indexOf('\n## What it is'))

test('The example of the library type-checks and prints what the README shows', () => {
  assert.equal(runExample(blockOf(librarySection, 'ts'), 'sunwise', 'index.ts'), blockOf(librarySection, 'text'))
})

test('The example of the client type-checks and prints what the README shows', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-example-'))
  try {
    await using server = await ServerProcess.start(directory, { flags: ['--shards', '1', '--memory', '96mb'] })
    const example = blockOf(clientSection, 'ts')
    assert.ok(example.includes(`'http://${SettingTable.http.fallback}'`))
    const printed = runExample(
      example.replace(`http://${SettingTable.http.fallback}`, server.ready.http),
      'sunwise/client',
      'client/connect.ts',
    )
    assert.equal(printed, blockOf(clientSection, 'text'))
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})

test('The table of the library has every method and property of a store, and no other', () => {
  const documented = tableRows(librarySection).flatMap(([call]) =>
    [...call!.matchAll(/`store\.(\w+)/g)].map((match) => match[1]!),
  )
  const existing = [BucketStore, Store].flatMap((type) => Object.getOwnPropertyNames(type.prototype))
  assert.deepEqual(documented.sort(), existing.filter((name) => name !== 'constructor').sort())
})

test('The table of the client has every method and property of it, and no other', () => {
  const documented = tableRows(clientSection).map(([call]) => /`client\.(\w+)/.exec(call!)?.[1])
  const existing = Object.getOwnPropertyNames(Client.prototype)
  assert.deepEqual(documented.sort(), existing.filter((name) => name !== 'constructor').sort())
})

test('The configuration file of the README is one', () => {
  const content = JSON.parse(blockOf(readme, 'json')) as Record<string, unknown>
  const { values, origins } = resolveSettings({ flags: {}, environment: {}, file: { path: 'config.json', content } })
  for (const name of Object.keys(content)) assert.equal(origins[name as keyof typeof origins], 'file')
  assert.equal(values.durability, content['durability'])
})

test('Every command, script, flag and variable that the README names exists', async () => {
  for (const [, script] of readme.matchAll(/npm run (?:-s )?([a-z:]+)/g))
    assert.ok(manifest.scripts[script!], `There is no script ${script}`)
  for (const script of ['start', 'test']) assert.ok(manifest.scripts[script], `There is no script ${script}`)
  const commands = await commandNames()
  for (const [, command] of readme.matchAll(/npm run -s sunwise -- ([a-z]+)/g))
    assert.ok(commands.includes(command!), `There is no command ${command}`)
  const programs = ['native-free-bench/main.ts', 'test/soak/soak.ts', 'test/sim/main.ts']
  const options = programs.map((path) => readFileSync(join(root, path), 'utf8')).join('\n')
  // Flags of curl and node in the examples, and of a peer in the table of benches.
  const foreign = ['--data-binary', '--test', '--sync']
  const flags = await commandFlags()
  for (const [flag] of readme.matchAll(/(?<![\w-])--[a-z][a-z0-9-]+/g)) {
    const isKnown = flags.has(flag) || foreign.includes(flag) || new RegExp(`\\b${flag.slice(2)}: \\{`).test(options)
    assert.ok(isKnown, `There is no flag ${flag}`)
  }
  const variables = [...Object.values(SettingTable).map(({ env }) => env), CONFIG_VARIABLE, 'SUNWISE_TEST_SCALE']
  for (const [variable] of readme.matchAll(/SUNWISE_[A-Z_]+/g)) assert.ok(variables.includes(variable), variable)
  for (const [, path] of readme.matchAll(/\bnode ([\w./-]+\.ts)/g)) {
    assert.ok(existsSync(join(root, path!)), `There is no ${path}`)
  }
  const long = /^SUNWISE_TEST_SCALE=\d+ node --test (.*)$/m.exec(blockOf(readme, 'sh'))![1]!.split(' ')
  for (const path of long) assert.match(readFileSync(join(root, path), 'utf8'), /SUNWISE_TEST_SCALE/, path)
})

test('Every code, header field and route that the README names exists, and no reserved code is promised in prose', () => {
  const fields = routes.flatMap(({ fields, answers }) => [
    ...fields,
    ...Object.values(answers).flatMap((answer) => ('fields' in answer ? answer.fields : [])),
  ])
  const known = [...fields, 'Sunwise-Request-Id']
  for (const [field] of readme.matchAll(/\bSunwise-[A-Z][A-Za-z-]+/g)) assert.ok(known.includes(field), field)
  const prose = readme.replace(sectionOf(readme, 'errors'), '')
  const others = ['HEAD', 'SO_REUSEPORT']
  for (const [, code] of prose.matchAll(/`([A-Z][A-Z_]{3,})`/g)) {
    if (code!.startsWith('SUNWISE_') || others.includes(code!)) continue
    assert.ok(Object.hasOwn(ErrorTable, code!), `There is no code ${code}`)
    assert.ok(!codesNotGivenYet().includes(code as keyof typeof ErrorTable), `${code} is only reserved`)
  }
})

test('Versions, defaults and ports in the prose are those of the package and the settings', () => {
  assert.ok(readme.includes(`Node ${manifest.engines.node.replace('>=', '>= ')}`))
  assert.ok(readme.includes(`Node ${manifest.devDependencies['node']}`))
  assert.equal(manifest.license, 'Apache-2.0')
  assert.ok(readme.includes('HTTP listens on 7070'))
  assert.equal(SettingTable.http.fallback, '127.0.0.1:7070')
  assert.ok(readme.includes(`\`${ConfigDefaults.durability}\` (default)`))
})

test('The README has the markers between which the bench puts its tables', () => {
  for (const name of ['bench', 'profile']) assert.equal(readme.split(`<!-- ${name}:begin -->`).length, 2)
  for (const name of ['bench', 'profile']) assert.ok(sectionOf(readme, name).length > 0)
})

test('Every file and name in ARCHITECTURE.md exists where it is said to be', () => {
  const spans = [...architecture.matchAll(/`([\w./-]+\.ts)(?:: ([^`]+))?`/g)]
  assert.ok(spans.length > 40)
  for (const [, path, names] of spans) {
    const file = path!.startsWith('test/') ? join(root, path!) : join(root, 'src', path!)
    assert.ok(existsSync(file), `There is no ${path}`)
    const text = readFileSync(file, 'utf8')
    for (const name of names?.split(', ') ?? []) {
      assert.match(text, new RegExp(`(?<![\\w#])${name.replace('()', '')}\\b`), `${path} has no ${name}`)
    }
  }
  for (const [, folder] of architecture.matchAll(/`([a-z/]+)\/`/g)) {
    const known = [join(root, 'src', folder!), join(root, folder!)].some((path) => existsSync(path))
    assert.ok(known, `There is no folder ${folder}`)
  }
})
