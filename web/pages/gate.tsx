/** The pages before the door: log in, sign up. They work without browser code. */
import type { ComponentChildren, JSX } from "preact";
import { BrandMark } from "../ui/brand.tsx";
import { Button } from "../ui/components/button.tsx";
import { Notice } from "../ui/components/notice.tsx";
import { TextField } from "../ui/components/text_field.tsx";

export interface GateForm {
  /** What was typed, shown again after a mistake. */
  readonly username?: string;
  /** Where to go afterwards. */
  readonly next: string;
  /** A mistake, next to the field it belongs to; without a field it stands above the form. */
  readonly error?: { readonly field: "username" | "password" | null; readonly message: string };
}

export function LoginPage(
  { form, signupOpen, loggedOut }: { form: GateForm; signupOpen: boolean; loggedOut: boolean },
): JSX.Element {
  return (
    <Gate title="Log in">
      {loggedOut && !form.error && <Notice tone="success">You are logged out.</Notice>}
      <FormError form={form} />
      <form class="gate__form" method="post" action="/login">
        <input type="hidden" name="next" value={form.next} />
        <TextField
          label="User name"
          name="username"
          value={form.username ?? ""}
          error={errorOf(form, "username")}
          autocomplete="username"
          autocapitalize="none"
          spellcheck={false}
          required
          autofocus={!form.username}
        />
        <TextField
          label="Password"
          name="password"
          type="password"
          error={errorOf(form, "password")}
          autocomplete="current-password"
          required
          autofocus={Boolean(form.username)}
        />
        <Button variant="primary" type="submit" wide>Log in</Button>
      </form>
      {signupOpen && (
        <p class="gate__other">
          New here? <a href={withNext("/signup", form.next)}>Create an account</a>
        </p>
      )}
    </Gate>
  );
}

export function SignupPage(
  { form, mailDomain }: { form: GateForm; mailDomain: string },
): JSX.Element {
  return (
    <Gate title="Create your account">
      <FormError form={form} />
      <form class="gate__form" method="post" action="/signup">
        <input type="hidden" name="next" value={form.next} />
        <TextField
          label="User name"
          name="username"
          value={form.username ?? ""}
          error={errorOf(form, "username")}
          hint="This becomes your mail address. It cannot be changed later."
          suffix={`@${mailDomain}`}
          autocomplete="username"
          autocapitalize="none"
          spellcheck={false}
          minlength={2}
          maxlength={32}
          required
          autofocus
        />
        <TextField
          label="Password"
          name="password"
          type="password"
          error={errorOf(form, "password")}
          hint="At least 8 characters. A few words in a row are easy to remember and hard to guess."
          autocomplete="new-password"
          minlength={8}
          required
        />
        <Button variant="primary" type="submit" wide>Create account</Button>
      </form>
      <p class="gate__other">
        Have an account? <a href={withNext("/login", form.next)}>Log in</a>
      </p>
    </Gate>
  );
}

export function SignupClosedPage(): JSX.Element {
  return (
    <Gate title="Sign-up is closed">
      <p>On this server an administrator makes the accounts. Ask them for one.</p>
      <Button href="/login" wide>Log in</Button>
    </Gate>
  );
}

function Gate({ title, children }: { title: string; children: ComponentChildren }): JSX.Element {
  return (
    <div class="gate">
      <div class="gate__sky" aria-hidden="true"></div>
      <main class="gate__card">
        <a class="gate__brand" href="/">
          <BrandMark />
          <span>PennCloud</span>
        </a>
        <h1 class="gate__title">{title}</h1>
        {children}
      </main>
      <footer class="gate__foot">
        Mail and files on your own machines, each thing on three disks.
      </footer>
    </div>
  );
}

function FormError({ form }: { form: GateForm }): JSX.Element | null {
  if (!form.error || form.error.field !== null) return null;
  return <Notice tone="danger">{form.error.message}</Notice>;
}

const errorOf = (form: GateForm, field: "username" | "password") =>
  form.error?.field === field ? form.error.message : null;

const withNext = (path: string, next: string) =>
  next === "/" ? path : `${path}?next=${encodeURIComponent(next)}`;
