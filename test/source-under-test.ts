/** What a run was made of, for the ledger: asked before the run, since the tree may move on meanwhile. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'

export type SourceUnderTest = {
  readonly commit: string
  /** Some file differs from the commit. Those of evidence/ are what runs write. */
  readonly isModified: boolean
}

export function sourceUnderTest(directory = join(import.meta.dirname, '..')): SourceUnderTest {
  const git = (...words: readonly string[]): string =>
    execFileSync('git', words, { cwd: directory, encoding: 'utf8' }).trim()
  const changes = git('status', '--porcelain', '--untracked-files=no', '--', '.', ':(exclude)evidence')
  return { commit: git('rev-parse', 'HEAD'), isModified: changes !== '' }
}
