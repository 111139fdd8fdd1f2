// Package fidotest is a FIDO2 security key made of software, for tests.
//
// [Key] answers CTAP2 commands: getInfo, makeCredential and getAssertion with
// hmac-secret and credProtect, clientPIN with protocols 1 and 2. It plays the two
// families of firmware that differ where unlock code goes wrong ([CTAP21],
// [CTAP20]), built-in user verification, keys that always verify, and the faults
// of bad hardware. What a person does, touching or not, is told to it too.
//
// A key can be reached in three ways. [Bench] puts keys behind the protocol of
// luksmith-fido2 inside the test's process. [Key.Terminal] plugs one into a
// pseudo-terminal, which libfido2 takes for a hidraw device, so that the real
// helper, fido2-token and systemd talk to it without any kernel support.
// [Key.UHID] makes a real hidraw device in a kernel that has uhid; the command
// virtual-key below this folder does that in a guest.
package fidotest
