/**
 * Builds `dist/`: one JavaScript file and one declaration per source file, nothing bundled. Imports of `.ts` become `.js`;
 * worker files are found at run time by the extension of their importer. `src/main.ts` becomes the program.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

const root = join(import.meta.dirname, '..')
const dist = join(root, 'dist')

rmSync(dist, { recursive: true, force: true })
const compiler = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin', 'tsc')
const { status } = spawnSync(process.execPath, [compiler, '-p', join(root, 'tsconfig.build.json')], {
  stdio: 'inherit',
})
if (status !== 0) process.exit(status ?? 1)

const program = join(dist, 'main.js')
writeFileSync(program, `#!/usr/bin/env node\n${readFileSync(program, 'utf8')}`)
chmodSync(program, 0o755)

const required = ['main.js', 'index.js', 'index.d.ts', 'client/connect.js', 'client/connect.d.ts']
for (const name of required) {
  if (existsSync(join(dist, name))) continue
  process.stderr.write(`The build lacks dist/${name}\n`)
  process.exit(1)
}
